"""From step scores to token advantages: a leaf package that needs only torch and a math verifier."""

from reward.credit import (
    discounted_returns,
    generalized_advantage_estimation,
    group_mean_baseline,
    group_normalized,
    leave_one_out_baseline,
    leave_one_out_outcomes,
    min_returns,
    outcome_advantages,
    over_steps,
    step_means,
    step_to_token,
    token_baseline,
    tokens_to_step,
)
from reward.dotted import resolve
from reward.methods import METHODS, Method
from reward.rollouts import StepRollouts, filled_scores
from reward.schedules import scheduled
from reward.shaping import (
    SHAPINGS,
    Shaping,
    centered_scores,
    clip_shaping,
    delta_shaping,
    potential_shaping,
    progress_shaping,
    raw_scores,
    soft_min_shaping,
)

__all__ = [
    "METHODS",
    "SHAPINGS",
    "Method",
    "Shaping",
    "StepRollouts",
    "centered_scores",
    "clip_shaping",
    "delta_shaping",
    "discounted_returns",
    "filled_scores",
    "generalized_advantage_estimation",
    "group_mean_baseline",
    "group_normalized",
    "leave_one_out_baseline",
    "leave_one_out_outcomes",
    "min_returns",
    "outcome_advantages",
    "over_steps",
    "potential_shaping",
    "progress_shaping",
    "raw_scores",
    "resolve",
    "scheduled",
    "soft_min_shaping",
    "step_means",
    "step_to_token",
    "token_baseline",
    "tokens_to_step",
]
