"""Process advantages: a step is credited with the change of the score."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_mean_baseline, over_steps
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts
from reward.shaping import progress_shaping


def progress(
    rollouts: StepRollouts, *, alpha: float = 1.0, initial: float = 0.5, outcome_weight: float = 1.0
) -> Float[Tensor, "B K"]:
    """The rewards are differences of scores, so the return is how far the score still rises.

    Formula: A_k = G_k − (mean of G over all steps of the group) + c·A_out, G_k = Σ_{j≥k} r_j,
    r_k = α·(p_k − p_{k−1}), p_0 = `initial`; α = `alpha`, c = `outcome_weight`

    Use when: the PRM estimates a value (the chance of success) better than it judges single steps.

    Known failure: it is not policy-invariant, since the last score is kept; restating the problem as a first step pays.

    Baseline: own share. The mean over all steps of the group gives long rollouts more weight.

    Source: PAV, arXiv 2410.08146 [paper]
    """
    mask, group = rollouts.step_mask, rollouts.num_generations
    rewards = progress_shaping(rollouts.step_scores, mask, alpha=alpha, initial=initial)
    returns = discounted_returns(rewards, mask)
    return returns - over_steps(group_mean_baseline(returns, mask, group), mask) + outcome_weight * outcome(rollouts)
