"""Differences of clipped scores: a bounded cumulative reward."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline, over_steps
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import clip_shaping, delta_shaping


def clip_delta(rollouts: StepRollouts, *, threshold: float = 0.5, outcome_weight: float = 1.0) -> Float[Tensor, "B K"]:
    """Only scores below a threshold count; the return of a step is its own clipped score, however many steps follow.

    Formula: A_k = Σ_{j≥k} r_j − (mean of that over all steps of the group) + c·A_out, r_k = c_k − c_{k+1}, r_K = c_K,
    c_k = min(p_k − η, 0), so Σ_{j≥k} r_j = c_k; η = `threshold`, c = `outcome_weight`

    Use when: rollouts inflate their steps under another method.

    Known failure: it sees no difference between steps scored above η; no published value of η is confirmed.

    Baseline: own share. The mean over all steps of the group gives long rollouts more weight.

    Source: Gao et al., arXiv 2410.15115 [mem]; only the principle, a bounded cumulative reward, is confirmed
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    clipped = clip_shaping(rollouts.step_scores, mask, threshold=threshold)
    returns = discounted_returns(delta_shaping(clipped, mask), mask)
    return returns - over_steps(group_mean_baseline(returns, mask, group), mask) + outcome_weight * outcome(rollouts)
