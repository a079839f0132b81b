"""The maths of PPO: token rewards, whitening, the clipped value loss, explained variance.

Letters: B = rollouts, K = steps, T = tokens. Every function works in float32, ignores the values where the mask is
False, and returns 0 there. GAE is ``reward.generalized_advantage_estimation``; the clipped policy loss is TRL's.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def token_rewards(
    process_rewards: Float[Tensor, "B K"],
    step_lengths: Int[Tensor, "B K"],
    outcome_rewards: Float[Tensor, " B"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """The process reward of step k at the step's last token, plus the outcome at the rollout's last token.

    The reward of a step without tokens goes to the token before it (the first token if there is none). A NaN outcome
    (unscorable) counts as 0. A rollout without real tokens gets 0.
    """
    rewards = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    ends = (step_lengths.cumsum(1) - 1).clamp(min=0, max=mask.shape[1] - 1)
    rewards = rewards.scatter_add(1, ends, process_rewards.float())
    last = (mask.sum(1, keepdim=True) - 1).clamp(min=0)
    rewards = rewards.scatter_add(1, last, outcome_rewards.float().nan_to_num(nan=0.0)[:, None])
    return torch.where(mask, rewards, 0)


def kl_penalty(
    log_probs: Float[Tensor, "B T"], reference_log_probs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """log π(a) − log π_ref(a): the one-sample estimate of KL(π‖π_ref), unbiased for a ∼ π (Schulman's k1)."""
    return torch.where(mask, log_probs.float() - reference_log_probs.float(), 0)


def masked_sums(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "3"]:
    """(count, Σx, Σx²) in float64. They add up over ranks, so that moments can be taken over all of them."""
    real = torch.where(mask, values, 0).double()
    return torch.stack([mask.sum().double(), real.sum(), (real**2).sum()])


def whitened(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], sums: Float[Tensor, "3"], *, epsilon: float = 1e-8
) -> Float[Tensor, "B T"]:
    """(x − mean) / (std + ε) with the moments of ``sums`` (see ``masked_sums``) and the unbiased std.

    Adding a constant to all real values, or scaling them by a positive factor, changes nothing. Fewer than two values
    give 0.
    """
    count, total, squares = sums.unbind()
    mean = total / count.clamp(min=1)
    variance = ((squares - count * mean**2) / (count - 1).clamp(min=1)).clamp(min=0)
    scaled = (values.double() - mean) / (variance.sqrt() + epsilon)
    return torch.where(mask & (count > 1), scaled, 0).float()


def clipped_value_loss(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip: float | None,
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """½·max((V − R)², (clip(V, V_old ± ε) − R)²) per token, and a mask of where the clipped term was the larger one.

    This is the pessimistic form of OpenAI's PPO2. ``clip=None`` gives the plain ½·(V − R)².
    """
    values, targets = values.float(), torch.where(mask, returns.float(), 0)
    plain = (values - targets) ** 2
    if clip is None:
        return torch.where(mask, plain / 2, 0), torch.zeros_like(mask)
    near = old_values.float() + (values - old_values.float()).clamp(-clip, clip)
    bounded = (near - targets) ** 2
    return torch.where(mask, torch.maximum(plain, bounded) / 2, 0), mask & (bounded > plain)


def explained_variance(value_sums: Float[Tensor, "3"], error_sums: Float[Tensor, "3"]) -> float:
    """1 − Var(R − V) / Var(R): 1 = the critic predicts the return, 0 = no better than a constant, below 0 = worse.

    It is NaN where the returns do not vary.

    Args:
        value_sums: ``masked_sums`` of the returns R, summed over all ranks.
        error_sums: those of R − V.
    """

    def variance(sums: Tensor) -> float:
        count, total, squares = sums.tolist()
        return max(squares / count - (total / count) ** 2, 0.0) if count else 0.0

    returns = variance(value_sums)
    return 1 - variance(error_sums) / returns if returns > 1e-12 else float("nan")
