"""How far step scores can be trusted, measured in training: does a rollout without a wrong step end in a right answer?

A rollout is *approved* when no scored step is at or below the threshold, which is ProcessBench's rule for "no error".
With exact scores every approved rollout would end right, however hard the problems are. Let b be the share of right
answers of all rollouts and q that of the approved ones: trust is (q − b) / (1 − b). It needs no labels beyond the
verdicts that training has anyway. The counts are a memory of named tensors, passed in and returned, so that a
checkpoint can hold them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.rollouts import StepRollouts

Approval = dict[str, Tensor]


def initial_approval() -> Approval:
    """Zero counts of the rollouts that were verified, right, approved, and both approved and right."""
    return {name: torch.zeros(()) for name in ("verified", "right", "approved", "approved_right")}


def approval_updated(
    rollouts: StepRollouts, memory: Approval, *, threshold: float = 0.5, window: float = 512.0
) -> Approval:
    """The memory after one more batch; only verified rollouts with a scored step count.

    Args:
        threshold: a step that scores at or below it is wrong.
        window: a rollout seen this many verified rollouts ago has weight 1/e.

    Raises:
        ValueError: ``window`` is not positive.
    """
    if not window > 0:
        raise ValueError(f"window: got {window}, expected a number of rollouts above 0")
    scored = rollouts.scored_steps
    lowest = rollouts.step_scores.float().masked_fill(~scored, torch.inf).amin(1)
    verified = (rollouts.scorable & scored.any(1)).float()
    right, approved = rollouts.correct.float() * verified, (lowest > threshold).float() * verified
    kept = torch.exp(-verified.sum() / window)
    new = {
        "verified": verified.sum(),
        "right": right.sum(),
        "approved": approved.sum(),
        "approved_right": (approved * right).sum(),
    }
    return {name: kept * memory[name] + count for name, count in new.items()}


def approval_lift(memory: Approval, *, caution: float = 0.0) -> Float[Tensor, ""]:
    """(q − z·se − b) / (1 − b): 1 when every approved rollout is right, 0 when approval says nothing, below 0 if worse.

    b is the share of right rollouts and q that among the approved ones. One further approved rollout of share b is
    counted in q, so that q is defined before any rollout is approved. se = √(q·(1 − q) / (approved + 1)) is the
    standard error of q, and z = ``caution``. The lift is 0 if nothing was verified, and if all rollouts were right.
    """
    base = memory["right"] / memory["verified"].clamp(min=1e-9)
    share = (memory["approved_right"] + base) / (memory["approved"] + 1)
    error = (share * (1 - share) / (memory["approved"] + 1)).clamp(min=0).sqrt()
    room = 1 - base
    return torch.where(room > 1e-6, (share - caution * error - base) / room.clamp(min=1e-6), 0)
