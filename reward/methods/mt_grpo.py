"""MT-GRPO: the rewards of the remaining turns, normalised over the group, beside the outcome."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_normalized
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.turn_rewards import turn_rewards

FORMS = ("aae", "cae")


def mt_grpo(
    rollouts: StepRollouts, *, form: str = "aae", turn_weight: float = 1.0, gamma: float = 1.0, neutral: float = 0.0
) -> Float[Tensor, "B K"]:
    """A step is credited with its rollout's outcome and with the rewards of the turns that have not ended before it.

    Formula: `form="aae"`: A_k = A_out + λ·n(T_k); `form="cae"`: A_k = n(λ·T_k + γ·o); T_k = Σ_{j≥k} (p_j − ν) over the
    scored steps, 0 where none is left; n(x_k) = (x_k − mean) / (std + 1e-4) at the same k over all rollouts of the
    group, where one that has ended counts with T_k = 0. A turn is a scored step: with tools, one that ends with a tool
    call; λ = `turn_weight`, γ = `gamma`, ν = `neutral`

    Use when: the environment scores tool calls, and rollouts make few of them.

    Known failure: with ν = 0 every further call that earns anything pays, so the policy makes useless calls; where only
    a few rollouts still have a turn to come, the scaling magnifies small differences.

    Baseline: unaffected. The mean at k is over all rollouts of the group, whether they have a step k or not; the
    rollout's own return is one of the G.

    Source: MT-GRPO, arXiv 2505.11821 [code]: one tool call, before it n(R^O) + λ·n(R^T), after it n(R^O). Summing over
    several turns, and counting a rollout without a call with T = 0 throughout, are this project's reading

    Raises:
        ValueError: an unknown ``form``.
    """
    if form not in FORMS:
        raise ValueError(f"form: got {form!r}, expected one of {', '.join(FORMS)}")
    mask, group = rollouts.step_mask, rollouts.num_generations
    to_come = discounted_returns(turn_rewards(rollouts, neutral=neutral), mask)
    if form == "aae":
        return outcome(rollouts) + turn_weight * torch.where(mask, _at_each_step(to_come, group), 0)
    paid = turn_weight * to_come + gamma * rollouts.outcome_rewards.float()[:, None]  # NaN rows are left out below
    return torch.where(mask, _at_each_step(paid, group), 0)


def _at_each_step(values: Float[Tensor, "B K"], num_generations: int) -> Float[Tensor, "B K"]:
    """Every column normalised over the rollouts of each group; NaN cells get 0."""
    steps = values.shape[1]
    columns = values.reshape(-1, num_generations, steps).transpose(1, 2).reshape(-1)
    normalised = group_normalized(columns[:, None], ~columns.isnan()[:, None], num_generations)[:, 0]
    return normalised.reshape(-1, steps, num_generations).transpose(1, 2).reshape(values.shape)
