"""DeepSeekMath's GRPO with process supervision."""

from jaxtyping import Float
from torch import Tensor

from reward.credit import discounted_returns, group_normalized
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts


def grpo_ps(rollouts: StepRollouts, *, reduce: str = "sum", outcome_weight: float = 1.0) -> Float[Tensor, "B K"]:
    """Scores normalised over all steps of the group, then summed over what is left of the rollout.

    Formula: A_k = Σ_{j≥k} z_j + c·A_out, z = (p − mean) / (std + 1e-4) over all steps of the group; `reduce="mean"`
    divides the sum by the number of steps left; c = `outcome_weight`

    Use when: reproducing DeepSeekMath; `reduce="mean"` for rollouts of very different step counts.

    Known failure: a uniformly good rollout gets K·z on its first token, so the sum favours more steps.

    Source: DeepSeekMath §4.1.3, arXiv 2402.03300 [paper]

    Raises:
        ValueError: ``reduce`` is neither "sum" nor "mean".
    """
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce: got {reduce!r}, expected 'sum' or 'mean'")
    mask = rollouts.step_mask
    returns = discounted_returns(group_normalized(rollouts.step_scores, mask, rollouts.num_generations), mask)
    if reduce == "mean":
        returns = returns / discounted_returns(mask.float(), mask).clamp(min=1)
    return returns + outcome_weight * outcome(rollouts)
