"""PURE's min-form with a soft minimum."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import (
    discounted_returns,
    leave_one_out_baseline,
    leave_one_out_outcomes,
    leave_one_out_returns,
    over_steps,
    token_baseline,
)
from reward.rollouts import StepRollouts
from reward.shaping import centered_scores, soft_min_shaping

BASELINES = ("token", "step", "return", "none")


def pure(
    rollouts: StepRollouts, *, temperature: float = 0.1, baseline: str = "token", outcome_weight: float = 1.0
) -> Float[Tensor, "B K"]:
    """The worst step decides: the scores q are weighted by softmax(−q/τ), so that their sum is a soft minimum.

    Formula: A_k = Σ_{j≥k} (r_j − b·n_j) + c·(o − LOO(o)), r = q·softmax(−q/τ), q = 2p − 1, R = Σ_k r_k,
    b = Σ_others R / Σ_others T, n_j the tokens of step j, T those of the rollout; with `baseline="return"`, Σ_{j≥k} r_j
    less its LOO replaces the sum; c = `outcome_weight`, τ = `temperature`

    Use when: the PRM is trusted to find the worst step; with the outcome, as published.

    Known failure: without an outcome term it ends in one giant step, chatter or repetition (within 5 updates).
    `baseline="step"` (b = LOO(R/K), charged per step) is hackable: rollouts avoid separators.

    Baseline: affected. b is charged for every further token or step, and is a bonus where b < 0; unaffected with
    `baseline="return"` or "none". The outcome's term is unaffected.

    Source: PURE, arXiv 2504.15275 [code], with one difference: the authors' code by default gives separator tokens and
    the final token no advantage; here they take their step's, as with every method

    Raises:
        ValueError: ``baseline`` is unknown, or ``temperature`` ≤ 0.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline: got {baseline!r}, expected one of {', '.join(BASELINES)}")
    mask, group = rollouts.step_mask, rollouts.num_generations
    rewards = soft_min_shaping(centered_scores(rollouts.step_scores, mask), mask, temperature=temperature)
    totals = rewards.sum(1)
    if baseline == "token":
        rates = token_baseline(totals, rollouts.token_counts.sum(1), group)
        rewards = rewards - rates[:, None] * rollouts.token_counts
    elif baseline == "step":
        means = leave_one_out_baseline(totals / rollouts.num_steps, torch.ones_like(mask[:, 0]), group)
        rewards = rewards - over_steps(means, mask)
    outcomes = outcome_weight * over_steps(leave_one_out_outcomes(rollouts.outcome_rewards, group), mask)
    if baseline == "return":
        return leave_one_out_returns(rewards, mask, group) + outcomes
    return discounted_returns(rewards, mask) + outcomes
