"""The hidden imperfect demonstrator, from which the toy policy learns."""

import random

from rlhf_prm.toyworld.problems import FACTS, FILLERS, ChainProblem, answer_line, result, step_line

WRONG_FACTS = 0.35  # share of the 150 facts it believes wrongly ...
SHOWN_WRONG = 0.7  # ... and how often it then shows its belief in place of the truth
NOISE = 0.02  # a random digit as a step's result
SLIP = 0.03  # per step: an operation skipped, or (as often) the answer given early
FILLER = 0.2  # per step, in the filler world: a line without content before it


class Demonstrator:
    """Writes solutions with its own habitual errors.

    A policy that imitates it starts at about 0.3 accuracy and knows the right digit of a wrongly believed fact only as
    the less likely one, which reinforcement learning can find.
    """

    def __init__(self, seed: int, filler: bool = False, wrong_facts: float = WRONG_FACTS) -> None:
        rng = random.Random(f"demonstrator {seed}")
        wrong = rng.sample(FACTS, round(wrong_facts * len(FACTS)))
        self.beliefs = {fact: (result(*fact) + rng.randint(1, 9)) % 10 for fact in wrong}
        self.filler = filler

    def solution(self, problem: ChainProblem, rng: random.Random) -> list[str]:
        """The steps of its solution of a problem, the answer last."""
        value, steps = problem.start, []
        for operation, operand in problem.chain:
            if rng.random() < SLIP:
                if rng.random() < 0.5:
                    break
                continue
            if self.filler and rng.random() < FILLER:
                steps.append(rng.choice(FILLERS))
            shown = self._result((value, operation, operand), rng)
            steps.append(step_line(value, operation, operand, shown))
            value = shown
        return [*steps, answer_line(value)]

    def _result(self, fact: tuple[int, str, int], rng: random.Random) -> int:
        if rng.random() < NOISE:
            return rng.randrange(10)
        if fact in self.beliefs and rng.random() < SHOWN_WRONG:
            return self.beliefs[fact]
        return result(*fact)
