"""Micro-batches of ragged rollouts: as little padding as a token budget allows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_prm.prm.texts import Rendered


def token_budget_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices in micro-batches whose padded size (rows × longest) stays within ``budget`` tokens.

    Rollouts are taken from the longest down, so rows of a micro-batch are of like length and the largest one, which
    decides the peak memory, comes first. A rollout longer than the budget is a micro-batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def within_context(rendered: Rendered, context: int) -> Rendered:
    """``rendered`` up to the last step end that the context holds; without any ends where it holds none."""
    ends = [end for end in rendered.ends if end < context]
    return Rendered(rendered.ids[: ends[-1] + 1] if ends else [], ends, rendered.start)


@dataclass(frozen=True)
class MicroBatch:
    """What one forward takes: B right-padded rows of T tokens and the N (row, column) pairs that are read."""

    input_ids: Tensor  # (B, T)
    rows: Tensor  # (N,)
    columns: Tensor  # (N,)
    starts: Tensor  # (B,): first index past the problem

    def to(self, device: torch.device) -> "MicroBatch":
        return MicroBatch(
            *(t.to(device, non_blocking=True) for t in (self.input_ids, self.rows, self.columns, self.starts))
        )


def collated(rollouts: list[Rendered], pad_id: int, pin: bool = False) -> MicroBatch:
    """Rollouts as a right-padded micro-batch; under causal attention no real token sees the padding, so no mask."""
    width = max(len(r.ids) for r in rollouts)
    tensors = (
        torch.tensor([r.ids + [pad_id] * (width - len(r.ids)) for r in rollouts]),
        torch.tensor([row for row, r in enumerate(rollouts) for _ in r.ends]),
        torch.tensor([end for r in rollouts for end in r.ends]),
        torch.tensor([r.start for r in rollouts]),
    )
    return MicroBatch(*(t.pin_memory() if pin else t for t in tensors))
