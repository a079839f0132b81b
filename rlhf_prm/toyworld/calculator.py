"""A calculator as an environment: it answers single facts, and sometimes fails.

It has the form of TRL's ``environment_factory`` (``reset``, and a public method with a docstring as a tool), and the
two methods that this project's trainers also call, ``turn_rewards`` and ``state_keys``.
"""

import math
import random
import re
from typing import Any

from rlhf_prm.toyworld.problems import OPERATIONS, ChainProblem, result

ERROR, TIMEOUT = "error", "timeout"
START = "start"

_QUESTION = re.compile(rf"(\d) ({'|'.join(OPERATIONS)}) (\d)")


class Calculator:
    """Answers "7 Add 3" with "0"; any other question, a whole chain or an answer in a box, with "error".

    Args:
        error_share, timeout_share: shares of the answerable questions that fail with "error" or "timeout".
        seed: decides which calls fail.

    Raises:
        ValueError: a share below 0, or shares above 1 together.
    """

    def __init__(self, error_share: float = 0.05, timeout_share: float = 0.05, seed: int | str = 0) -> None:
        if min(error_share, timeout_share) < 0 or error_share + timeout_share > 1:
            raise ValueError(
                f"got error_share={error_share} and timeout_share={timeout_share}, expected shares that make up at "
                "most 1, and none below 0"
            )
        self._shares = error_share, timeout_share
        self._rng = random.Random(f"calculator {seed}")
        self._digits: tuple[int, ...] = ()
        self._chain: tuple[tuple[str, int], ...] = ()
        self._rewards: list[float] = []
        self._keys: list[str] = [START]
        self._done = 0

    def reset(self, prompt: str | list[dict[str, str]], **columns: Any) -> None:
        """Begin with a problem: its text, or a conversation that ends with it. The policy is told nothing."""
        problem = ChainProblem.parse(prompt if isinstance(prompt, str) else prompt[-1]["content"])
        self._digits, self._chain = (problem.start, *problem.values), problem.chain
        self._rewards, self._keys, self._done = [], [START], 0

    def calculate(self, question: str) -> str:
        """Tells one fact.

        Args:
            question: a digit, an operation and a number, such as "7 Add 3".

        Returns:
            The digit modulo 10, or "error", or "timeout".
        """
        matched = _QUESTION.fullmatch(question.strip())
        facts = (int(matched[1]), matched[2], int(matched[3])) if matched else None
        answer = ERROR if facts is None else self._answer(facts)
        place = None if facts is None else self._place(facts)
        if answer in (ERROR, TIMEOUT) and place is not None:
            self._rewards.append(math.nan)  # the right question, but no answer
        else:
            self._rewards.append(0.0 if place is None else 1.0)
            self._done = self._done if place is None else place + 1
        self._keys.append(f"{self._done} {question.strip()} {answer}")
        return answer

    def turn_rewards(self) -> list[float]:
        """One number per call: 1 = a fact of the chain was asked for, further on than the last; 0 = it was not; NaN =
        the tool has failed."""
        return list(self._rewards)

    def state_keys(self) -> list[str]:
        """What matters of all that was seen before each turn: operations behind, and the last question and answer."""
        return list(self._keys)

    def _answer(self, facts: tuple[int, str, int]) -> str:
        draw, (errors, timeouts) = self._rng.random(), self._shares
        if draw < errors:
            return ERROR
        return TIMEOUT if draw < errors + timeouts else str(result(*facts))

    def _place(self, facts: tuple[int, str, int]) -> int | None:
        """The operation of the chain, past the last one asked about, that the question is about; None = none."""
        for place in range(self._done, len(self._chain)):
            if (self._digits[place], *self._chain[place]) == facts:
                return place
        return None
