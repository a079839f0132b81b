"""How far can step scores be trusted? As far as finding no wrong step foretells a right answer, measured in training.

A rollout is *approved* when no step scores at or below the threshold, ProcessBench's rule for "no error". If the scores
were exact, every approved rollout would end right, in an easy world as in a hard one. So trust is how much of the way
from the policy's own share of right answers to 1 the share of right answers among the approved rollouts goes. It needs
no labels but the verdicts that training has anyway. The counts are a memory: named tensors that go in and come out, so
that a checkpoint can hold them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from reward.rollouts import StepRollouts

Approval = dict[str, Tensor]


def initial_approval() -> Approval:
    """Nothing seen yet: how many rollouts were verified, right, approved, and both approved and right."""
    return {name: torch.zeros(()) for name in ("verified", "right", "approved", "approved_right")}


def approval_updated(
    rollouts: StepRollouts, memory: Approval, *, threshold: float = 0.5, window: float = 512.0
) -> Approval:
    """The memory after one more batch; only verified rollouts count.

    Args:
        threshold: a step is wrong at or below it.
        window: what was seen so many verified rollouts ago weighs 1/e.

    Raises:
        ValueError: ``window`` is not positive.
    """
    if not window > 0:
        raise ValueError(f"window: got {window}, expected a number of rollouts above 0")
    lowest = rollouts.step_scores.float().masked_fill(~rollouts.step_mask, torch.inf).amin(1)
    verified = rollouts.scorable.float()
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

    b is the share of right rollouts; q that among the approved ones, with one further rollout of share b added, so that
    it is defined before any is approved; se = √(q·(1 − q) / (approved + 1)), its standard error; z = ``caution``. It is
    0 where nothing was verified, and where all were right.
    """
    base = memory["right"] / memory["verified"].clamp(min=1e-9)
    share = (memory["approved_right"] + base) / (memory["approved"] + 1)
    error = (share * (1 - share) / (memory["approved"] + 1)).clamp(min=0).sqrt()
    room = 1 - base
    return torch.where(room > 1e-6, (share - caution * error - base) / room.clamp(min=1e-6), 0)
