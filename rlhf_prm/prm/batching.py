"""Micro-batches of ragged rollouts: little padding within a token budget, shared prefixes once where that pays."""

from collections import defaultdict
from dataclasses import dataclass, fields
from itertools import accumulate

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


@dataclass(frozen=True)
class Unit:
    """Micro-batches (of indices) whose rows all begin with the same ``prefix``, which is run once for them."""

    prefix: list[int]
    batches: list[list[int]]


def plan(rendered: list[Rendered], groups: list[int], budget: int, sharing_from: float) -> list[Unit]:
    """The forwards to make: groups worth it with their common prefix apart, everything else in one unit without.

    Args:
        rendered: the rollouts.
        groups: for each the number of its group (its problem).
        budget: tokens of a micro-batch, padding counted.
        sharing_from: a group's prefix is shared where that saves at least this part of the group's tokens. Keys and
            values that are handed on cost a copy and an explicit attention mask, so small savings are losses.
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
    """The longest beginning that all rows share; the smallest and the largest row differ first of all pairs."""
    first, last = min(rows), max(rows)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:shared]


def without_prefix(rendered: Rendered, length: int) -> Rendered:
    """``rendered`` from its token ``length`` on; no step may end before."""
    if length == 0:
        return rendered
    return Rendered(rendered.ids[length:], [end - length for end in rendered.ends], max(0, rendered.start - length))


def within_context(rendered: Rendered, context: int) -> Rendered:
    """``rendered`` up to the last step end that the context holds; without any ends where it holds none."""
    ends = [end for end in rendered.ends if end < context]
    return Rendered(rendered.ids[: ends[-1] + 1] if ends else [], ends, rendered.start)


@dataclass(frozen=True)
class MicroBatch:
    """What one forward takes: B rows of T tokens and the N (row, column) pairs that are read.

    Rollouts are the right-padded rows, or stand one after the other in a single row, where ``positions`` begins anew
    with each.
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
        """On ``device``; through pinned memory, without blocking, where that is a GPU."""
        pinned = device.type == "cuda"
        moved = {
            name: (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)
            for name, tensor in self.tensors().items()
        }
        return MicroBatch(**moved)


def collated(rollouts: list[Rendered], pad_id: int) -> MicroBatch:
    """Rollouts as right-padded rows; under causal attention no real token sees the padding, so there is no mask."""
    width = max(len(r.ids) for r in rollouts)
    return MicroBatch(
        torch.tensor([r.ids + [pad_id] * (width - len(r.ids)) for r in rollouts]),
        torch.tensor([row for row, r in enumerate(rollouts) for _ in r.ends]),
        torch.tensor([end for r in rollouts for end in r.ends]),
        torch.tensor([r.start for r in rollouts]),
    )


def packed(rollouts: list[Rendered]) -> MicroBatch:
    """Rollouts in one row without padding, for attention that keeps apart what begins at position 0."""
    offsets = [0, *accumulate(len(r.ids) for r in rollouts)]
    ends = [offset + end for offset, r in zip(offsets, rollouts, strict=False) for end in r.ends]
    return MicroBatch(
        torch.tensor([[i for r in rollouts for i in r.ids]]),
        torch.zeros(len(ends), dtype=torch.long),
        torch.tensor(ends),
        torch.tensor([rollouts[0].start]),
        torch.tensor([[position for r in rollouts for position in range(len(r.ids))]]),
    )
