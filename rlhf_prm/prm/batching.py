"""Micro-batches of ragged rollouts: little padding within a token budget, and shared prefixes run once if that pays."""

from collections import defaultdict
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from rlhf_prm.prm.texts import Rendered


def token_budget_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices in micro-batches whose padded size (rows × longest) stays within ``budget`` tokens.

    Rollouts are taken from the longest down, so rows of a micro-batch have similar lengths and the largest one, which
    decides the peak memory, comes first. A rollout longer than the budget gets its own micro-batch.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


@dataclass(frozen=True)
class Unit:
    """Micro-batches (of indices) whose rows all begin with the same ``prefix``, which is run once for them."""

    prefix: list[int]
    batches: list[list[int]]


def plan(rendered: list[Rendered], groups: list[int], budget: int, sharing_from: float) -> list[Unit]:
    """The forwards to make: one unit for each group whose common prefix is worth sharing, one for everything else.

    Args:
        rendered: the rollouts.
        groups: for each rollout, the number of its group (its problem).
        budget: tokens of a micro-batch, including padding.
        sharing_from: a group's prefix is shared if that saves at least this share of the group's tokens. Handing
            on keys and values costs a copy and an explicit attention mask, so small savings do not pay.
    """
    members = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    units, rest = [], []
    for group in members.values():
        prefix = common_prefix([rendered[i].ids[: rendered[i].ends[0]] for i in group])
        saved = (len(group) - 1) * len(prefix)
        if saved and saved >= sharing_from * sum(len(rendered[i].ids) for i in group):
            lengths = [len(rendered[i].ids) - len(prefix) for i in group]
            units.append(Unit(prefix, [[group[j] for j in b] for b in token_budget_batches(lengths, budget)]))
        else:
            rest += group
    batches = token_budget_batches([len(rendered[i].ids) for i in rest], budget)
    return [*units, Unit([], [[rest[j] for j in batch] for batch in batches])]


def common_prefix(rows: list[list[int]]) -> list[int]:
    """The longest common prefix of all rows, which is that of the smallest and the largest row."""
    first, last = min(rows), max(rows)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:shared]


def without_prefix(rendered: Rendered, length: int) -> Rendered:
    """``rendered`` from its token ``length`` on; no step may end before it."""
    if length == 0:
        return rendered
    return Rendered(rendered.ids[length:], [end - length for end in rendered.ends], max(0, rendered.start - length))


def within_context(rendered: Rendered, context: int) -> Rendered:
    """``rendered`` up to the last step end that fits the context; it has no ends if none fits."""
    ends = [end for end in rendered.ends if end < context]
    return Rendered(rendered.ids[: ends[-1] + 1] if ends else [], ends, rendered.start)


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward: B rows of T tokens, and the N (row, column) pairs that are read.

    Rollouts are right-padded rows, or follow one another in a single row, where ``positions`` restarts at 0
    with each of them.
    """

    input_ids: Tensor  # (B, T)
    rows: Tensor  # (N,)
    columns: Tensor  # (N,)
    starts: Tensor  # (B,): first index past the problem
    positions: Tensor | None = None  # (1, T), of a packed row

    def tensors(self) -> dict[str, Tensor]:
        """The arguments of a read-out module's forward."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def to(self, device: torch.device) -> "MicroBatch":
        """The batch on ``device``; to a GPU it is copied through pinned memory, without blocking."""
        pinned = device.type == "cuda"
        moved = {
            name: (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)
            for name, tensor in self.tensors().items()
        }
        return MicroBatch(**moved)


def collated(rollouts: list[Rendered], pad_id: int) -> MicroBatch:
    """Rollouts as right-padded rows. Attention is causal, so no real token sees the padding and no mask is needed."""
    width = max(len(r.ids) for r in rollouts)
    return MicroBatch(
        torch.tensor([r.ids + [pad_id] * (width - len(r.ids)) for r in rollouts]),
        torch.tensor([row for row, r in enumerate(rollouts) for _ in r.ends]),
        torch.tensor([end for r in rollouts for end in r.ends]),
        torch.tensor([r.start for r in rollouts]),
    )


def packed(rollouts: list[Rendered]) -> MicroBatch:
    """Rollouts in one row without padding, for attention that treats each restart at position 0 as a new sequence."""
    offsets = [0, *accumulate(len(r.ids) for r in rollouts)]
    ends = [offset + end for offset, r in zip(offsets, rollouts, strict=False) for end in r.ends]
    return MicroBatch(
        torch.tensor([[i for r in rollouts for i in r.ids]]),
        torch.zeros(len(ends), dtype=torch.long),
        torch.tensor(ends),
        torch.tensor([rollouts[0].start]),
        torch.tensor([[position for r in rollouts for position in range(len(r.ids))]]),
    )
