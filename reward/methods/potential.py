"""Potential-based shaping, with the process reward model as the potential."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline
from reward.rollouts import StepRollouts
from reward.shaping import last_steps, potential_shaping


def potential(rollouts: StepRollouts, *, gamma: float = 1.0, initial: float | None = None) -> Float[Tensor, "B K"]:
    """The outcome at the last step, shaped by potentials that are 0 at the end; a rollout without an outcome gets 0.

    Formula: A_k = γ^{K−k}·o + Σ_{j≥k} γ^{j−k}·F_j, F_k = γ·Φ_k − Φ_{k−1}, Φ_k = p_k for k < K, Φ_K = 0,
    Φ_0 = `initial` or mean_g o; with γ = 1: A_k = o − Φ_{k−1}

    Use when: credit per step is wanted without changing which policy is optimal.

    Known failure: it is no better than the PRM's calibration. Scores that are too high lower the advantage of all later
    steps, and so do outcomes with an offset, because only the first step's baseline follows the outcomes.

    Baseline: unaffected. Φ_{k−1} depends on what came before step k, Φ_0 on the group's outcomes.

    Source: Ng, Harada, Russell, ICML 1999 (policy invariance under reward transformations)
    """
    mask, scorable = rollouts.step_mask, ~rollouts.outcome_rewards.isnan()
    start = group_mean_baseline(rollouts.outcome_rewards, scorable, rollouts.num_generations)
    if initial is not None:
        start = torch.full_like(start, initial)
    shaping = potential_shaping(rollouts.step_scores, mask, gamma=gamma, initial=start)
    terminal = torch.where(last_steps(mask) & scorable[:, None], rollouts.outcome_rewards.float()[:, None], 0)
    return discounted_returns(shaping + terminal, mask & scorable[:, None], gamma=gamma)
