"""PURE's min-form with the exact minimum."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import leave_one_out_baseline, leave_one_out_outcomes, min_returns, over_steps, step_means
from reward.rollouts import StepRollouts
from reward.shaping import centered_scores


def pure_strict(rollouts: StepRollouts, *, outcome_weight: float = 1.0) -> Float[Tensor, "B K"]:
    """The return of a step is the lowest score from it on.

    Formula: A_k = G_k − LOO(Σ_k n_k·G_k / T) + c·(o − LOO(o)), G_k = min_{j≥k} q_j, q = 2p − 1, n_k the tokens of
    step k, T those of the rollout; c = `outcome_weight`

    Use when: as `pure`, without its temperature; steps after the worst one keep their own credit.

    Known failure: one noisy low score sets the return of every step before it.

    Baseline: unaffected. One fixed term, from the other rollouts.

    Source: PURE's strict min-form, arXiv 2504.15275 [code]; the baseline's normalisation is this project's, and
    separator and final tokens, which the authors' code leaves out, take their step's advantage
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    returns = min_returns(centered_scores(rollouts.step_scores, mask), mask)
    per_rollout = step_means(returns, mask, rollouts.token_counts)
    baselines = leave_one_out_baseline(per_rollout, torch.ones_like(mask[:, 0]), group)
    outcomes = leave_one_out_outcomes(rollouts.outcome_rewards, group)
    return returns + over_steps(outcome_weight * outcomes - baselines, mask)
