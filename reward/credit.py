"""Credit assignment: returns, baselines, normalisation over groups, and the way from steps to tokens.

Letters: B = rollouts, K = steps, T = tokens, G = ``num_generations`` (the G rollouts of one prompt are adjacent rows).
Every function is pure, works in float32, ignores the values where the mask is False, and returns 0 there.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EPSILON = 1e-4  # added to every standard deviation, as TRL's GRPOTrainer does
STATE_EPSILON = 1e-6  # the same among steps of one state, as GiGPO's authors do


def discounted_returns(
    rewards: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"], *, gamma: float = 1.0
) -> Float[Tensor, "B K"]:
    """Gₖ = rₖ + γ·Gₖ₊₁ = Σ_{j≥k} γ^{j−k}·rⱼ; γ = 0 gives the rewards, γ = 1 the undiscounted reward-to-go.

    The columns may be tokens as well as steps.
    """
    returns = torch.where(mask, rewards.float(), 0)
    # Doubling: after each pass every cell holds the sum of twice as many rewards, so log₂K passes do. The order of
    # the additions does not depend on the padding.
    reach = 1
    while reach < returns.shape[1] and gamma != 0:
        ahead = torch.nn.functional.pad(returns[:, reach:], (0, reach))
        returns = torch.add(returns, ahead, alpha=gamma**reach)
        reach *= 2
    return torch.where(mask, returns, 0)


def min_returns(rewards: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Gₖ = min_{j≥k} rⱼ: the return of PURE's strict min-form (arXiv 2504.15275)."""
    padded = torch.where(mask, rewards.float(), torch.inf)
    returns = padded.flip(1).cummin(dim=1).values.flip(1)
    return torch.where(mask, returns, 0)


def group_mean_baseline(
    values: Float[Tensor, "B *K"], mask: Bool[Tensor, "B *K"], num_generations: int
) -> Float[Tensor, " B"]:
    """Mean over all real cells of the group, one number per rollout; 0 where the group has none."""
    grouped = torch.where(mask, values.float(), torch.nan).reshape(len(values) // num_generations, -1)
    return grouped.nanmean(dim=1).nan_to_num(nan=0.0).repeat_interleave(num_generations)


def leave_one_out_baseline(
    values: Float[Tensor, " B"], mask: Bool[Tensor, " B"], num_generations: int
) -> Float[Tensor, " B"]:
    """LOOᵢ = mean_{m≠i} x_m over the group's other real values; 0 where there are none.

    x − LOO = G/(G−1) × (x − mean) when all G are real.
    """
    counts = mask.float()
    return _others(torch.where(mask, values.float(), 0), counts, num_generations)


def token_baseline(
    returns: Float[Tensor, " B"], num_tokens: Int[Tensor, " B"], num_generations: int
) -> Float[Tensor, " B"]:
    """Return per token of the group's other rollouts, Σ_{m≠i} R_m / Σ_{m≠i} T_m; 0 where they have no token.

    This is PURE's baseline (arXiv 2504.15275). A step is charged in proportion to its tokens, so cutting a rollout into
    fewer or more steps changes nothing.
    """
    return _others(returns.float(), num_tokens.float(), num_generations)


def _others(values: Float[Tensor, " B"], weights: Float[Tensor, " B"], num_generations: int) -> Float[Tensor, " B"]:
    """Σ_{m≠i} values_m / Σ_{m≠i} weights_m within the group; 0 where the weights sum to 0."""
    grouped, counts = values.reshape(-1, num_generations), weights.reshape(-1, num_generations)
    # A matrix of "all but this one" instead of total − own: nothing cancels, so equal values stay exactly equal.
    others = 1 - torch.eye(num_generations, device=values.device)
    sums, totals = (grouped[:, None] * others).sum(-1), (counts[:, None] * others).sum(-1)
    return torch.where(totals > 0, sums / totals.clamp(min=1), 0).flatten()


def positional_advantages(
    values: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"], num_generations: int
) -> Float[Tensor, "B K"]:
    """xₖ − mean of x at the same step k over the group's *other* rollouts; 0 where none of them has a step k.

    A trend over positions that all rollouts share cancels. The baseline of a step depends on the other rollouts and on
    k only, so one such term adds no bias. A *sum* of these terms over steps does (see ``docs/methods.md``), because its
    number of terms depends on when the rollout ends. Values in float64 stay in float64.
    """
    precision = torch.promote_types(values.dtype, torch.float32)
    grouped = torch.where(mask, values.to(precision), 0).reshape(-1, num_generations, values.shape[1])
    real = mask.to(precision).reshape(grouped.shape)
    # As in _others. Values are taken relative to the group's first value at k, so that equal values give exactly 0.
    first = torch.where(real.cumsum(1) == 1, grouped * real, 0).sum(1, keepdim=True)
    shifted = (grouped - first) * real
    everyone_else = 1 - torch.eye(num_generations, device=values.device, dtype=precision)
    sums, counts = everyone_else @ shifted, everyone_else @ real
    advantages = torch.where((real > 0) & (counts > 0), shifted - sums / counts.clamp(min=1), 0)
    return advantages.reshape(values.shape)


def leave_one_out_returns(
    rewards: Float[Tensor, "B K"],
    mask: Bool[Tensor, "B K"],
    num_generations: int,
    *,
    gamma: float = 1.0,
    ended: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, "B K"]:
    """Gₖ − LOO(Gₖ), Gₖ = Σ_{j≥k} γ^{j−k}·rⱼ: the return from k on, less its mean over the group's other rollouts.

    A rollout that ended before k counts with its value in ``ended`` (default: 0). The baseline of a step thus depends
    on k and on the other rollouts only, and the expected gradient is that of the return itself. Centring the *rewards*
    and then summing them is not such a baseline: it charges for every further step. (``positional_advantages`` of the
    returns averages only over the rollouts that have a step k; it is unbiased too.)

    Rows without a real step are left out.
    """
    returns = discounted_returns(rewards, mask, gamma=gamma)
    if ended is not None:
        returns = torch.where(mask, returns, ended.float()[:, None])
    counted = mask.any(1, keepdim=True).expand_as(mask)
    return torch.where(mask, positional_advantages(returns, counted, num_generations), 0)


def within_states(
    values: Float[Tensor, "B K"],
    mask: Bool[Tensor, "B K"],
    states: Int[Tensor, "B K"],
    num_generations: int,
    *,
    scaled: bool = False,
) -> Float[Tensor, "B K"]:
    """x − mean of x over the group's steps of the same state; ``scaled`` divides by their unbiased std + 1e-6.

    A step gets 0 if its state is unknown (a key below 0) or if no other step of the group has the same state.
    """
    known = mask & (states >= 0)
    group = torch.arange(len(values), device=values.device) // num_generations
    _, place = states.flatten().unique(return_inverse=True)
    pairs = group[:, None] * (place.max() + 1) + place.reshape(states.shape)
    _, place = torch.where(known, pairs, -1).flatten().unique(return_inverse=True)
    real, flat = known.flatten().float(), torch.where(known, values.float(), 0).flatten()

    def total(of: Tensor) -> Tensor:
        """The sum over the steps of the same state, at each of them."""
        return torch.zeros_like(flat).scatter_add(0, place, of)[place]

    count = total(real)
    for _ in range(2):  # rounding leaves equal values slightly off their mean; centring twice makes them exactly 0
        flat = (flat - total(flat) / count.clamp(min=1)) * real
    if scaled:
        flat = flat / ((total(flat.square()) / (count - 1).clamp(min=1)).sqrt() + STATE_EPSILON)
    return torch.where(count > 1, flat, 0).reshape(values.shape)


def group_normalized(
    values: Float[Tensor, "B *K"], mask: Bool[Tensor, "B *K"], num_generations: int
) -> Float[Tensor, "B *K"]:
    """(x − mean) / (std + 1e-4) over all real cells of the group, with the unbiased std; a single cell gives 0.

    For one value per rollout this is the group scaling of TRL's GRPOTrainer, bit for bit.
    """
    grouped = torch.where(mask, values.float(), torch.nan).reshape(len(values) // num_generations, -1)
    if values.ndim > 1:
        # Rounding leaves equal scores ~1e-8 off their mean. Divided by std + 1e-4 and summed over steps, that becomes
        # visible; centring twice makes it exactly 0. Outcomes are centred once, as TRL does.
        grouped = grouped - grouped.nanmean(dim=1, keepdim=True)
    mean = grouped.nanmean(dim=1, keepdim=True)
    count = (~grouped.isnan()).sum(dim=1, keepdim=True)
    variance = ((grouped - mean) ** 2).nanmean(dim=1, keepdim=True) * (count / (count - 1).clamp(min=1))
    normalized = (grouped - mean) / (variance.sqrt() + EPSILON)
    return normalized.nan_to_num(nan=0.0).reshape(values.shape)


def outcome_advantages(outcome_rewards: Float[Tensor, " B"], num_generations: int) -> Float[Tensor, " B"]:
    """A_out = (o − mean_g o) / (std_g o + 1e-4), TRL's group scaling; NaN rows are left out and get 0."""
    return group_normalized(outcome_rewards, ~outcome_rewards.isnan(), num_generations)


def leave_one_out_outcomes(outcome_rewards: Float[Tensor, " B"], num_generations: int) -> Float[Tensor, " B"]:
    """o − LOO(o); NaN rows are left out and get 0."""
    scorable = ~outcome_rewards.isnan()
    baselines = leave_one_out_baseline(outcome_rewards, scorable, num_generations)
    return torch.where(scorable, outcome_rewards.float() - baselines, 0)


def over_steps(values: Float[Tensor, " B"], step_mask: Bool[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """The rollout's value at each of its real steps."""
    return torch.where(step_mask, values.float()[:, None], 0)


def step_means(
    step_values: Float[Tensor, "B K"], step_mask: Bool[Tensor, "B K"], weights: Int[Tensor, "B K"] | None = None
) -> Float[Tensor, " B"]:
    """Mean over the real steps of each rollout; with ``weights`` = step lengths, mean over its tokens (0 if none)."""
    counts = step_mask.float() if weights is None else torch.where(step_mask, weights, 0).float()
    totals = (torch.where(step_mask, step_values.float(), 0) * counts).sum(1)
    return torch.where(counts.sum(1) > 0, totals / counts.sum(1).clamp(min=1), 0)


def step_to_token(
    step_values: Float[Tensor, "B K"], step_lengths: Int[Tensor, "B K"], num_tokens: int
) -> Float[Tensor, "B T"]:
    """Every token takes the value of its step; tokens after the last step take 0.

    Args:
        step_lengths: tokens per step, 0 for padded steps.
        num_tokens: T, at least the longest row's total.

    Raises:
        ValueError: a negative length, or a row longer than ``num_tokens``.
    """
    values = torch.nn.functional.pad(step_values, (0, 1))
    return _repeated(values, step_lengths, num_tokens)


def tokens_to_step(token_values: Float[Tensor, "B T"], step_lengths: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Sum of the tokens' values over each step; tokens after the last step are ignored.

    Raises:
        ValueError: a negative length, or a row longer than T.
    """
    batch, steps = step_lengths.shape
    index = torch.arange(steps + 1, device=step_lengths.device).expand(batch, -1)
    step_of_token = _repeated(index, step_lengths, token_values.shape[1])
    sums = token_values.new_zeros(batch, steps + 1, dtype=torch.float32)
    return sums.scatter_add(1, step_of_token, token_values.float())[:, :steps]


def _repeated(values: Tensor, step_lengths: Int[Tensor, "B K"], num_tokens: int) -> Tensor:
    """Each row of ``values`` (B, K+1) repeated by the K lengths; the last column fills the row up to T."""
    left = num_tokens - step_lengths.sum(1, keepdim=True)
    if (step_lengths < 0).any() or (left < 0).any():
        raise ValueError(
            f"step_lengths: got totals up to {num_tokens - int(left.min())} tokens and a smallest length of "
            f"{int(step_lengths.min())}, expected totals ≤ num_tokens = {num_tokens} and lengths ≥ 0 (0 for padding)"
        )
    # The index is as long as all tokens of the batch together: int32 halves its memory traffic, and so the time.
    repeats = torch.cat([step_lengths, left], dim=1).flatten().int()
    total = len(values) * num_tokens
    return values.flatten().repeat_interleave(repeats, output_size=total).reshape(len(values), num_tokens)


def generalized_advantage_estimation(
    rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, gamma: float, lam: float
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """GAE(γ, λ): advantages and returns (advantages + values), Schulman et al. 2016 (arXiv 1506.02438).

    δₜ = rₜ + γ·Vₜ₊₁ − Vₜ, Aₜ = δₜ + γλ·Aₜ₊₁, with V = 0 after a rollout's last real token.
    λ = 1, γ = 1, V = 0 is the reward-to-go; λ = 0 is the one-step temporal difference.

    Raises:
        ValueError: the real tokens of a row are not contiguous.
    """
    starts = mask[:, 1:] & ~mask[:, :-1]
    if (starts.sum(1) + mask[:, 0] > 1).any():
        raise ValueError("mask: got a row whose real tokens have a gap, expected contiguous real tokens in every row")
    real_values = torch.where(mask, values.float(), 0)
    next_values = torch.nn.functional.pad(real_values[:, 1:], (0, 1))
    deltas = rewards.float() + gamma * next_values - real_values
    advantages = discounted_returns(deltas, mask, gamma=gamma * lam)
    return advantages, torch.where(mask, advantages + real_values, 0)
