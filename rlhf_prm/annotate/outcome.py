"""Outcome labels: the verifier's verdict on a solution's answer, at every step of it.

They need only the verifier. A PRM that learns them at every step becomes a value function; with
``target: outcome`` only the last one is learnt, and the result is an outcome reward model.
"""

from rlhf_prm.step_data import StepLabels


def every_step(right: bool, steps: int) -> StepLabels:
    """The labels of one solution."""
    return StepLabels([right] * steps, [float(right)] * steps, "outcome")
