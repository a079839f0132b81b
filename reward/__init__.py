"""From step scores to token advantages: a leaf package that needs only torch and a math verifier."""

from reward.dotted import resolve
from reward.rollouts import StepRollouts

__all__ = ["StepRollouts", "resolve"]
