"""StepScorer: what the trainers, the evaluations and the audits need of a process reward model."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class StepScorer(Protocol):
    """Anything that scores reasoning steps."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """P(step correct | problem, steps so far) in [0, 1]: for each rollout one score per step.

        NaN marks a step that could not be scored (past the model's context).
        """
        ...
