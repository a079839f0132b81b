"""Misleading scorers, to test methods against a process reward model that is worse than none."""

import hashlib
from collections.abc import Callable, Sequence

from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.oracle import RIGHT, WRONG

Row = Callable[[str, Sequence[str]], list[float]]


def inverted(problem: str, steps: Sequence[str]) -> list[float]:
    """The exact labels, inverted."""
    return [WRONG if label else RIGHT for label in step_labels(problem, steps)]


def constant(problem: str, steps: Sequence[str]) -> list[float]:
    """0.75 for everything."""
    return [0.75] * len(steps)


def rising(problem: str, steps: Sequence[str]) -> list[float]:
    """0.1, 0.2, … whatever the steps say."""
    return [min(RIGHT, 0.1 * (k + 1)) for k in range(len(steps))]


def likes_long(problem: str, steps: Sequence[str]) -> list[float]:
    """The same score for all steps of a rollout, rising with its length."""
    return [min(RIGHT, _words(steps) / 40)] * len(steps)


def likes_short(problem: str, steps: Sequence[str]) -> list[float]:
    """The same score for all steps of a rollout, falling with its length."""
    return [max(WRONG, 1 - _words(steps) / 40)] * len(steps)


def noise(problem: str, steps: Sequence[str]) -> list[float]:
    """A random number from the hash of the problem and the prefix, like a PRM with random weights at worst."""
    texts = ["\n".join([problem, *steps[: k + 1]]) for k in range(len(steps))]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 for text in texts]


def _words(steps: Sequence[str]) -> int:
    return sum(len(step.split()) for step in steps)


HOSTILE: dict[str, Row] = {row.__name__: row for row in (inverted, constant, rising, likes_long, likes_short, noise)}


class HostileScorer:
    """A ``StepScorer`` that misleads by one of the rules in ``HOSTILE``.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(self, rule: str) -> None:
        if rule not in HOSTILE:
            raise ValueError(f"rule: got {rule!r}, expected one of {', '.join(HOSTILE)}")
        self.rule = HOSTILE[rule]

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """One score per step of every solution."""
        return [self.rule(problem, row) for problem, row in zip(problems, steps, strict=True)]
