"""ExactMatchVerifier: the toy world's outcome reward, without a parser of mathematics and without worker processes."""

import re

from reward.verifier import Verdict

_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def final_answer(text: str) -> str | None:
    """The content of the last box of a text; None if there is no box."""
    boxes = _BOXED.findall(text)
    return boxes[-1].strip() if boxes else None


class ExactMatchVerifier:
    """A ``Verifier`` that compares the last box of a completion with the gold answer, character by character.

    A gold answer of None, or a blank one, gives the reward None (status ``bad_gold``).
    """

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        """One verdict per completion, in order; ``seconds`` is 0."""
        return [self._verdict(text, solution) for text, solution in zip(completions, solutions, strict=True)]

    def _verdict(self, completion: str, solution: str | None) -> Verdict:
        answer = final_answer(completion)
        if solution is None or not solution.strip():
            return Verdict(None, "bad_gold", answer, 0.0)
        if answer is None:
            return Verdict(0.0, "no_answer", None, 0.0)
        gold = final_answer(solution) or solution.strip()
        return Verdict(float(answer == gold), "correct" if answer == gold else "incorrect", answer, 0.0)
