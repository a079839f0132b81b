"""What others need to know of a process reward model without loading one: no torch, so that ``--help`` is quick."""

from typing import Protocol, runtime_checkable

PLACEMENTS = ("replicate", "offload", "zero3", "server")


@runtime_checkable
class StepScorer(Protocol):
    """Anything that scores reasoning steps."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """P(step correct | problem, steps so far) in [0, 1]: for each rollout one score per step.

        NaN marks a step that could not be scored (past the model's context).
        """
        ...
