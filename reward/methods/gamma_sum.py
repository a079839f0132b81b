"""Discounted sums of the raw scores, the form of reward that collapses."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline, over_steps
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import raw_scores


def gamma_sum(rollouts: StepRollouts, *, gamma: float = 1.0, outcome_weight: float = 1.0) -> Float[Tensor, "B K"]:
    """Scores are rewards, and a step is credited with their discounted sum less the group's mean return.

    Formula: A_k = G_k − mean_g G_1 + c·A_out, G_k = Σ_{j≥k} γ^{j−k}·p_j; c = `outcome_weight`

    Use when: as the negative control of an ablation, not to train with.

    Known failure: every step adds reward, so the policy writes more and more steps and stops answering; PURE saw the
    collapse at about update 25.

    Baseline: unaffected. One fixed term, mean_g G_1; the return itself pays every further step.

    Source: the sum-form of Math-Shepherd, arXiv 2312.08935 [2nd]; the collapse is from PURE, arXiv 2504.15275
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    returns = discounted_returns(raw_scores(rollouts.step_scores, mask), mask, gamma=gamma)
    baselines = group_mean_baseline(returns[:, 0], mask[:, 0], group)
    return returns - over_steps(baselines, mask) + outcome_weight * outcome(rollouts)
