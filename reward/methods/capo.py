"""CAPO: only the tokens of steps that a judge calls wrong are penalised."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import EPSILON
from reward.rollouts import StepRollouts


def capo(
    rollouts: StepRollouts, *, outcome_weight: float = 2.0, process_weight: float = 1.0, threshold: float = 0.5
) -> Float[Tensor, "B K"]:
    """The outcome for every token, less a penalty for the tokens of wrong steps, scaled over the group's tokens.

    Formula: A_k = (r_k − mean_t r) / (std_t r + 1e-4) over all tokens of the group, r_k = W·o − w·1[p_k ≤ θ], where an
    unscored step is not wrong; W = `outcome_weight`, w = `process_weight`, θ = `threshold`

    Use when: the scores are a judge's votes on single steps (`--prm judge:MODEL`, form `verdicts`, several votes).

    Known failure: all right steps are equal, so a helpful step and filler that no judge calls wrong are treated alike.
    θ = ½ needs a majority of the votes against a step, θ = 0 all of them (the paper's intersection). A PRM never says
    exactly 0, so with θ = 0 and a PRM only the outcome is left.

    Baseline: own share. One term per token; the mean over all tokens of the group gives long rollouts more weight.

    Source: CAPO, arXiv 2508.02298 [2nd]; scaling over tokens and not over rollouts is this project's reading
    """
    group = rollouts.num_generations
    judged = rollouts.step_mask & ~rollouts.outcome_rewards.isnan()[:, None]
    paid = outcome_weight * rollouts.outcome_rewards.float()[:, None]
    rewards = torch.where(judged, paid - process_weight * rollouts.judged_wrong(threshold).float(), 0)
    tokens = torch.where(judged, rollouts.token_counts, 0).float()
    by_group, weights = (values.reshape(len(values) // group, -1) for values in (rewards, tokens))
    total = weights.sum(1, keepdim=True).clamp(min=1)
    for _ in range(2):  # rounding leaves equal rewards slightly off their mean; centring twice makes them exactly 0
        by_group = by_group - (weights * by_group).sum(1, keepdim=True) / total
    variance = (weights * by_group**2).sum(1, keepdim=True) / (total - 1).clamp(min=1)
    scaled = by_group / (variance.sqrt() + EPSILON) * (weights.sum(1, keepdim=True) > 0)
    return torch.where(judged, scaled.reshape(rewards.shape), 0)
