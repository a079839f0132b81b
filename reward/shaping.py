"""Shapings turn step scores (B, K) into process rewards (B, K). A new one is a function and a line in ``SHAPINGS``.

Every shaping takes ``(step_scores, step_mask, **keywords)`` and gives 0 where the mask is False. Shapings nest:
``delta_shaping(clip_shaping(p, mask), mask)``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Shaping = Callable[..., Float[Tensor, "B K"]]


def raw_scores(step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """rₖ = pₖ. It is never negative, so every further step adds to a sum of rewards: such sums reward length."""
    return torch.where(step_mask, step_scores.float(), 0)


def centered_scores(step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """qₖ = 2pₖ − 1 ∈ [−1, 1], that is P(correct) − P(wrong), as PURE reads its scores (arXiv 2504.15275)."""
    return torch.where(step_mask, 2 * step_scores.float() - 1, 0)


def clip_shaping(
    step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"], *, threshold: float = 0.5
) -> Float[Tensor, "B K"]:
    """cₖ = min(pₖ − η, 0): a score above η earns nothing, one below it costs (Gao et al., arXiv 2410.15115)."""
    return torch.where(step_mask, (step_scores.float() - threshold).clamp(max=0), 0)


def delta_shaping(step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """rₖ = xₖ − xₖ₊₁, r_K = x_K: the sum from k on is xₖ, however many steps follow (Gao et al., arXiv 2410.15115)."""
    scores = raw_scores(step_scores, step_mask)
    return torch.where(step_mask, scores - torch.nn.functional.pad(scores[:, 1:], (0, 1)), 0)


def potential_shaping(
    step_scores: Float[Tensor, "B K"],
    step_mask: Bool[Tensor, "B K"],
    *,
    gamma: float = 1.0,
    initial: float | Float[Tensor, " B"] = 0.5,
) -> Float[Tensor, "B K"]:
    """Fₖ = γ·Φₖ − Φₖ₋₁ with Φₖ = pₖ for k < K, **Φ_K = 0** at the terminal state, Φ₀ = ``initial``.

    Policy-invariant because the terminal potential is 0: with γ = 1, Σₖ Fₖ = −Φ₀ (Ng, Harada, Russell 1999).
    """
    scores = raw_scores(step_scores, step_mask)
    potentials = torch.where(last_steps(step_mask), 0, scores)
    return torch.where(step_mask, gamma * potentials - _previous(scores, initial), 0)


def progress_shaping(
    step_scores: Float[Tensor, "B K"],
    step_mask: Bool[Tensor, "B K"],
    *,
    alpha: float = 1.0,
    initial: float | Float[Tensor, " B"] = 0.5,
) -> Float[Tensor, "B K"]:
    """rₖ = α·(pₖ − pₖ₋₁), p₀ = ``initial``: the change of the score at the step (PAV, arXiv 2410.08146).

    The last score is kept (Σₖ rₖ = α·(p_K − p₀)), so this is not policy-invariant.
    """
    scores = raw_scores(step_scores, step_mask)
    return torch.where(step_mask, alpha * (scores - _previous(scores, initial)), 0)


def soft_min_shaping(
    step_scores: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"], *, temperature: float = 0.1
) -> Float[Tensor, "B K"]:
    """rₖ = wₖ·xₖ with w = softmaxₖ(−x/τ): the sum is a soft minimum, the minimum for τ → 0 (PURE, arXiv 2504.15275).

    Raises:
        ValueError: ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature}, expected > 0 (pure_strict is the limit at 0)")
    scores = raw_scores(step_scores, step_mask)
    weights = torch.where(step_mask, -scores / temperature, -torch.inf).softmax(dim=1)
    return torch.where(step_mask, weights * scores, 0)


def last_steps(step_mask: Bool[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
    """True at each rollout's last real step."""
    return step_mask & ~torch.nn.functional.pad(step_mask[:, 1:], (0, 1))


def _previous(scores: Float[Tensor, "B K"], initial: float | Float[Tensor, " B"]) -> Float[Tensor, "B K"]:
    first = torch.as_tensor(initial, dtype=scores.dtype, device=scores.device).expand(len(scores))
    return torch.cat([first[:, None], scores[:, :-1]], dim=1)


SHAPINGS: dict[str, Shaping] = {
    "raw_scores": raw_scores,
    "centered_scores": centered_scores,
    "clip_shaping": clip_shaping,
    "delta_shaping": delta_shaping,
    "potential_shaping": potential_shaping,
    "progress_shaping": progress_shaping,
    "soft_min_shaping": soft_min_shaping,
}
