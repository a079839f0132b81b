"""The rewards of the turns of a rollout: the scores of the scored steps, and the outcome at the end.

A turn is a step that has a score of its own (``StepRollouts.scored``). If an environment scores turns, that is the step
that ends with a tool call; if ``scored`` is None, every step is a turn.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reward.rollouts import StepRollouts
from reward.shaping import last_steps


def turn_rewards(rollouts: StepRollouts, *, neutral: float = 0.0) -> Float[Tensor, "B K"]:
    """tₖ = pₖ − ν at the scored steps, 0 at the others; ν = ``neutral`` is the score that earns nothing.

    With ν = 0 no turn costs anything, so a sum of them pays every further turn.
    """
    return torch.where(rollouts.scored_steps, rollouts.step_scores.float() - neutral, 0)


def turn_rewards_and_outcome(
    rollouts: StepRollouts, *, process_weight: float, neutral: float
) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """rₖ = w·tₖ, plus the outcome at the last step; and a mask of the steps of rollouts that have an outcome."""
    mask = rollouts.step_mask
    judged = mask & ~rollouts.outcome_rewards.isnan()[:, None]
    paid = torch.where(judged & last_steps(mask), rollouts.outcome_rewards.float()[:, None], 0)
    return process_weight * turn_rewards(rollouts, neutral=neutral) + paid, judged
