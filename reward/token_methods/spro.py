"""SPRO: the log-ratio of the policy to its reference is the process reward, compared at equal token positions."""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.credit import step_to_token
from reward.methods.outcome import outcome
from reward.rollouts import StepRollouts


def spro(rollouts: StepRollouts, *, beta: float = 0.05) -> Float[Tensor, "B T"]:
    """A token is credited with the cumulative implicit reward so far, less the group's mean at the same position.

    Formula: A_t = A_out + R_t − mean of R_t over the group's rollouts that have a token t, R_t = β·Σ_{s≤t} d_s,
    d = log π/π_ref = the token score

    Use when: there is neither a PRM nor a teacher; the policy is compared with its reference (`prm: self`).

    Known failure: rollouts are compared at equal token positions, where they may be at different places of the
    solution; the log-ratio is 0 at the first update, and later rewards what the policy already does more often.

    Baseline: unaffected. The cumulative reward so far is compared with one mean over the rollouts that have this token,
    whatever this rollout writes later.

    Source: SPRO, arXiv 2507.01551 [2nd]; β is not stated there

    Raises:
        ValueError: there are no token scores.
    """
    mask, group = rollouts.token_mask, rollouts.num_generations
    scores = torch.where(mask, rollouts.required_token_scores.float(), 0)
    so_far = torch.where(mask, beta * scores.cumsum(1), 0)
    grouped, counts = (x.reshape(-1, group, mask.shape[1]) for x in (so_far, mask.float()))
    means = grouped.sum(1) / counts.sum(1).clamp(min=1)
    masked = torch.where(mask, so_far - means.repeat_interleave(group, 0), 0)
    return step_to_token(outcome(rollouts), rollouts.token_counts, mask.shape[1]) + masked


spro.per_token = True  # type: ignore[attr-defined]
