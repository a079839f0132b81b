"""OracleScorer: exact step labels of a world as step scores, and, by choice, with known errors in them.

In place of a PRM it shows the ceiling: what a method would gain from a process reward model that is always right. With
errors of a known kind it shows how good a PRM has to be.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_prm.toyworld.checker import CHAINS, Checker

RIGHT, WRONG = 0.98, 0.02


@dataclass(frozen=True)
class OracleScorer:
    """A ``StepScorer`` of a world's solutions: 0.98 for a step up to the first error, 0.02 from there on.

    Args:
        random_flips: share of the scores that are turned around, each prefix for itself. The same prefix of the same
            problem is always scored alike, as by a PRM.
        systematic_flips: share of the facts that a step can state (in the toy world 1,500 lines such as "7 Add 3 = 0")
            about which the oracle is mistaken, in every solution alike: a right line ends the right part of the
            solution, and a wrong one passes as right.
        seed: decides which.
        checker: the world's; the toy world's by default.

    Raises:
        ValueError: a share outside [0, 1].
    """

    random_flips: float = 0.0
    systematic_flips: float = 0.0
    seed: int = 0
    checker: Checker = CHAINS

    def __post_init__(self) -> None:
        for name in ("random_flips", "systematic_flips"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a share between 0 and 1")

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """One score per step of every solution.

        Raises:
            ValueError: a problem that is none of the world's.
        """
        return [self._row(problem, row) for problem, row in zip(problems, steps, strict=True)]

    def _row(self, problem: str, steps: Sequence[str]) -> list[float]:
        believed = self._believed(problem, steps)
        if self.random_flips:
            believed = [
                label != (self._draw("prefix", problem, *steps[: k + 1]) < self.random_flips)
                for k, label in enumerate(believed)
            ]
        return [RIGHT if label else WRONG for label in believed]

    def _believed(self, problem: str, steps: Sequence[str]) -> list[bool]:
        """Whether the oracle takes everything up to each step for right."""
        if not self.systematic_flips:
            return self.checker.labels(problem, steps)
        labels, so_far = [], True
        for step, right in zip(steps, self.checker.verdicts(problem, steps), strict=True):
            fact = self.checker.fact(step)
            mistaken = fact is not None and self._draw("line", fact) < self.systematic_flips
            so_far = so_far and right != mistaken
            labels.append(so_far)
        return labels

    def _draw(self, *what: str) -> float:
        return random.Random("|".join((str(self.seed), *what))).random()
