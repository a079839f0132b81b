"""How far token scores can be trusted, measured in training: does a rollout's credit correlate with its outcome?

The measure is ρ, the correlation within groups between the total credit of a rollout's steps and whether its answer was
right. It needs no labels beyond the verdicts that training has anyway. Its sums over the last verified rollouts are a
memory of named tensors, passed in and returned, so that a checkpoint can hold them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import positional_advantages
from reward.rollouts import StepRollouts

Trust = dict[str, Tensor]
NO_SPREAD = 1e-9  # a variance below it is rounding


def initial_trust() -> Trust:
    """Zero sums of Δcredit·Δoutcome, Δcredit² and Δoutcome², and zero degrees of freedom.

    Δ is the difference from the group's mean.
    """
    return {name: torch.zeros(()) for name in ("product", "credit", "outcome", "freedom")}


def trust_updated(
    rollouts: StepRollouts, memory: Trust, *, window: float = 512.0, credit: Float[Tensor, " B"] | None = None
) -> Trust:
    """The memory after one more batch.

    Only the verified rollouts of groups with right *and* wrong answers count; in other groups the outcome does not
    vary.

    Args:
        window: a rollout seen this many counted rollouts ago has weight 1/e.
        credit: the total credit of each rollout; default: Σ_k of ``positional_advantages`` of its step scores.

    Raises:
        ValueError: ``window`` is not positive.
    """
    if not window > 0:
        raise ValueError(f"window: got {window}, expected a number of rollouts above 0")
    groups = rollouts.num_generations
    if credit is None:
        credit = positional_advantages(rollouts.step_scores, rollouts.step_mask, groups).sum(1)
    credit = credit.float().reshape(-1, groups)
    known, right = rollouts.scorable.reshape(-1, groups), rollouts.correct.reshape(-1, groups).float()
    mixed = (right * known).sum(1).gt(0) & ((1 - right) * known).sum(1).gt(0)
    counted = (known & mixed[:, None]).float()
    freedom = counted.sum(1).sub(1).clamp(min=0).sum()
    deltas = {"credit": _centered(credit, counted), "outcome": _centered(right, counted)}
    kept = torch.exp(-counted.sum() / window)
    return {
        "product": kept * memory["product"] + (deltas["credit"] * deltas["outcome"]).sum(),
        "credit": kept * memory["credit"] + deltas["credit"].square().sum(),
        "outcome": kept * memory["outcome"] + deltas["outcome"].square().sum(),
        "freedom": kept * memory["freedom"] + freedom,
    }


def credit_correlation(memory: Trust) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """ρ of credit and outcome over the memory's rollouts, and its standard error (1 − ρ²)/√(degrees of freedom).

    ρ is 0 where the credit or the outcome does not vary; the standard error is 1 where nothing has been seen.
    """
    spread = (memory["credit"] * memory["outcome"]).sqrt()
    seen = (memory["credit"] > NO_SPREAD) & (memory["outcome"] > NO_SPREAD)
    rho = torch.where(seen, memory["product"] / spread.clamp(min=NO_SPREAD), 0).clamp(-1, 1)
    return rho, (1 - rho.square()) / memory["freedom"].clamp(min=1).sqrt()


def _centered(values: Float[Tensor, "P G"], counted: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """Differences from the mean of the counted values in each row; 0 elsewhere."""
    means = (values * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
    return (values - means) * counted
