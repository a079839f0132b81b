"""The public names and where they are: read by type checkers, and by ``reward/__init__.py`` when it runs."""

from .approval import (
    approval_lift as approval_lift,
    approval_updated as approval_updated,
    initial_approval as initial_approval,
)
from .credit import (
    discounted_returns as discounted_returns,
    generalized_advantage_estimation as generalized_advantage_estimation,
    group_mean_baseline as group_mean_baseline,
    group_normalized as group_normalized,
    leave_one_out_baseline as leave_one_out_baseline,
    leave_one_out_outcomes as leave_one_out_outcomes,
    leave_one_out_returns as leave_one_out_returns,
    min_returns as min_returns,
    outcome_advantages as outcome_advantages,
    over_steps as over_steps,
    positional_advantages as positional_advantages,
    step_means as step_means,
    step_to_token as step_to_token,
    token_baseline as token_baseline,
    tokens_to_step as tokens_to_step,
    within_states as within_states,
)
from .dotted import resolve as resolve
from .methods import METHODS as METHODS, Method as Method
from .ppo import (
    clipped_value_loss as clipped_value_loss,
    explained_variance as explained_variance,
    kl_penalty as kl_penalty,
    masked_sums as masked_sums,
    token_rewards as token_rewards,
    whitened as whitened,
)
from .reward_functions import (
    format_reward as format_reward,
    length_penalty as length_penalty,
    outcome_reward as outcome_reward,
)
from .rollouts import StepRollouts as StepRollouts, filled_scores as filled_scores
from .schedules import scheduled as scheduled
from .shaping import (
    SHAPINGS as SHAPINGS,
    Shaping as Shaping,
    centered_scores as centered_scores,
    clip_shaping as clip_shaping,
    delta_shaping as delta_shaping,
    potential_shaping as potential_shaping,
    progress_shaping as progress_shaping,
    raw_scores as raw_scores,
    soft_min_shaping as soft_min_shaping,
)
from .token_methods import TOKEN_METHODS as TOKEN_METHODS, TokenMethod as TokenMethod
from .trust import (
    credit_correlation as credit_correlation,
    initial_trust as initial_trust,
    trust_updated as trust_updated,
)
from .turn_rewards import turn_rewards as turn_rewards, turn_rewards_and_outcome as turn_rewards_and_outcome
from .verifier import STATUSES as STATUSES, MathVerifier as MathVerifier, Verdict as Verdict, Verifier as Verifier
