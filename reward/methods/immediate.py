"""The outcome plus the raw score of the step itself."""

from jaxtyping import Float
from torch import Tensor

from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores


def immediate(rollouts: StepRollouts, *, process_weight: float = 0.5) -> Float[Tensor, "B K"]:
    """A step is credited with its own score and with nothing that comes after it.

    Formula: A_k = A_out + w·p_k, neither centred nor normalised nor summed; w = `process_weight`

    Use when: starting out; it is the simple form that beat outcome only, in 4 of 5 exploratory toy-world runs.

    Known failure: the score is never negative, so it also pays the steps of wrong answers, and a PRM that scores
    everything high flattens the contrast between rollouts; a constant p = 0.75 made the toy policy worse.

    Baseline: unaffected. One term per step, and only the outcome's mean is subtracted.

    Source: exploratory runs of a toy-world prototype; no paper
    """
    return outcome(rollouts) + process_weight * raw_scores(rollouts.step_scores, rollouts.step_mask)
