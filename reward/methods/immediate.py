"""Outcome plus the raw score of the step itself."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import outcome_advantages, over_steps
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores


def immediate(rollouts: StepRollouts, *, process_weight: float = 0.5) -> Float[Tensor, "B K"]:
    """A step is credited with its own score and with nothing that comes after it.

    Formula: A_k = A_out + w·p_k, not centred, not normalised, not cumulated; w = `process_weight`

    Use when: first; the one simple form that beat outcome only in this project's toy world.

    Known failure: never negative, so a rollout of a wrong answer is pushed less far down, and a process reward model
    that likes everything only slows learning. A constant p = 0.75 in its place made the toy policy worse.

    Source: this project, measured in the toy world; no paper
    """
    advantages = outcome_advantages(rollouts.outcome_rewards, rollouts.num_generations)
    return over_steps(advantages, rollouts.step_mask) + process_weight * raw_scores(
        rollouts.step_scores, rollouts.step_mask
    )
