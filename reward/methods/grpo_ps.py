"""DeepSeekMath's GRPO with process supervision."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_normalized, leave_one_out_returns
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts

BASELINES = ("steps", "return")


def grpo_ps(
    rollouts: StepRollouts, *, reduce: str = "sum", baseline: str = "steps", outcome_weight: float = 1.0
) -> Float[Tensor, "B K"]:
    """Scores are normalised over all steps of the group, then summed over the remaining steps of the rollout.

    Formula: A_k = Σ_{j≥k} z_j + c·A_out, z = (p − mean) / (std + 1e-4) over all steps of the group; `reduce="mean"`
    divides the sum by the number of remaining steps; `baseline="return"` centres the sum instead of the scores
    and does not scale: A_k = G_k − LOO(G_k) + c·A_out, G_k = Σ_{j≥k} p_j; c = `outcome_weight`

    Use when: reproducing DeepSeekMath; `reduce="mean"` for rollouts of very different step counts.

    Known failure: a rollout whose steps are all good gets K·z on its first step, so the sum favours more steps.

    Baseline: affected. Every further step costs the group's mean score, and with `reduce="mean"` the divisor depends on
    the remaining steps; unaffected with `baseline="return"`, where every further step is paid its score.

    Source: DeepSeekMath §4.1.3, arXiv 2402.03300 [paper]

    Raises:
        ValueError: ``reduce`` or ``baseline`` is unknown, or ``reduce="mean"`` is combined with ``baseline="return"``.
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce: got {reduce!r}, expected 'sum' or 'mean'")
    if baseline not in BASELINES or (reduce, baseline) == ("mean", "return"):
        raise ValueError(f"baseline: got {baseline!r}, expected 'steps', or with reduce 'sum' also 'return'")
    mask, group = rollouts.step_mask, rollouts.num_generations
    if baseline == "return":
        return leave_one_out_returns(rollouts.step_scores, mask, group) + outcome_weight * outcome(rollouts)
    returns = discounted_returns(group_normalized(rollouts.step_scores, mask, group), mask)
    if reduce == "mean":
        returns = returns / discounted_returns(mask.float(), mask).clamp(min=1)
    return returns + outcome_weight * outcome(rollouts)
