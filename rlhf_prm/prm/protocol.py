"""The protocol of process reward models. It does not import torch, so that ``--help`` is quick."""

from typing import Any, Protocol, runtime_checkable

PLACEMENTS = ("replicate", "offload", "zero3", "server")
TARGETS = ("steps", "outcome")


@runtime_checkable
class StepScorer(Protocol):
    """Anything that scores reasoning steps."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """P(step correct | problem, steps so far) in [0, 1]: for each rollout one score per step.

        NaN marks a step that could not be scored (past the model's context).
        """
        ...


def target_of(scorer: Any) -> str:
    """What a scorer's scores refer to: ``"steps"``, or ``"outcome"`` for an outcome reward model.

    An outcome model's score at step k is its estimate of the chance that the prefix up to k has a right answer: each
    prefix is scored as if it were a whole solution.
    """
    target = getattr(scorer, "target", TARGETS[0])
    if target not in TARGETS:
        raise ValueError(f"prm_target of this reward model is {target!r}, expected one of {', '.join(TARGETS)}")
    return str(target)
