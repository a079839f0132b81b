"""PRIME's advantage: token rewards of an implicit PRM and the outcome, each with its own leave-one-out baseline."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, leave_one_out_outcomes
from reward.ppo import masked_sums
from reward.rollouts import StepRollouts


def prime(
    rollouts: StepRollouts,
    *,
    process_weight: float = 5.0,
    outcome_weight: float = 5.0,
    batch_norm: bool = True,
    drop_last: bool = True,
    keep_from: float = 0.0,
    keep_to: float = 1.0,
) -> Float[Tensor, "B T"]:
    """A token is credited with its own and all later implicit rewards and with the outcome, less those of the others.

    Formula: A = whiten(Σ_{s≥t} w·r'_s + v·(o − LOO(o))), r'_t = r_t·G/(G−1) − Σ_group m_j/(G−1), m = token mean of r;
    r = the token score, divided by its largest |Σ_{s≥t} r_s| with `batch_norm`, 0 at the last token with `drop_last`;
    w, v = `process_weight`, `outcome_weight`

    Use when: the scorer is an implicit PRM that is trained along with the policy (`prm: implicit`), as published.

    Known failure: the process baseline is charged once for every remaining token, so length costs or pays (as with
    `grpo_ps`); with `batch_norm` one rollout sets the scale of all.

    Baseline: affected. m is charged for every remaining token.

    Source: PRIME, arXiv 2502.01456 [code: verl-recipe prime/]; the authors' own repository keeps the last token
    (`drop_last=False`). Both train only on groups with a share of right answers from .2 to .8 (`keep_from`, `keep_to`)

    Raises:
        ValueError: there are no token scores, or only one rollout per prompt.
    """
    group = rollouts.num_generations
    if group < 2:
        raise ValueError(f"num_generations: got {group}, expected at least 2: PRIME compares the rollouts of a prompt")
    mask = rollouts.token_mask & _kept(rollouts, keep_from, keep_to)[:, None]
    lengths = mask.sum(1)
    last = torch.arange(mask.shape[1], device=mask.device) == lengths[:, None] - 1
    scores = torch.where(mask & ~last if drop_last else mask, rollouts.required_token_scores.float(), 0)
    if batch_norm:
        scores = scores / (discounted_returns(scores, mask).abs().max() + 1e-6)
    means = scores.sum(1) / lengths.clamp(min=1)
    others = means.reshape(-1, group).sum(1).repeat_interleave(group)[:, None]
    process = (scores * group - others) / (group - 1)
    outcomes = leave_one_out_outcomes(rollouts.outcome_rewards, group)
    rewards = process_weight * process + torch.where(last, outcome_weight * outcomes[:, None], 0)
    return _whitened(discounted_returns(rewards, mask), mask)


def _kept(rollouts: StepRollouts, low: float, high: float) -> Tensor:
    """Rollouts of groups whose share of right answers, among the scorable ones, lies in [low, high]."""
    if (low, high) == (0.0, 1.0):
        return torch.ones_like(rollouts.scorable)
    by_group = rollouts.scorable.reshape(-1, rollouts.num_generations).sum(1).clamp(min=1)
    share = rollouts.correct.reshape(-1, rollouts.num_generations).sum(1) / by_group
    return ((share >= low) & (share <= high)).repeat_interleave(rollouts.num_generations)


def _whitened(values: Float[Tensor, "B T"], mask: Tensor) -> Float[Tensor, "B T"]:
    """(x − mean) / √(unbiased variance + 1e-8) over all real tokens."""
    count, total, squares = masked_sums(values, mask).unbind()
    mean = total / count.clamp(min=1)
    variance = ((squares - count * mean**2) / (count - 1).clamp(min=1)).clamp(min=0)
    return torch.where(mask & (count > 1), (values.double() - mean) * (variance + 1e-8).rsqrt(), 0).float()


prime.per_token = True  # type: ignore[attr-defined]
