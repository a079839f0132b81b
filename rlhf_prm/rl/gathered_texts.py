"""Which parts of a rank's rollouts are gathered on all ranks: all numbers, and the texts of a sample of whole groups.

Group statistics, methods and metrics need numbers. Texts are for the completions table, the guard and the labelling of
rollouts, none of which needs all of them; the texts of 64 rollouts of 16k tokens take 4 MB.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rlhf_prm.rl.rollout_scoring import ScoredRollout

Item = TypeVar("Item")


def kept_texts(first: int, count: int, total: int, num_generations: int, budget: int | None) -> list[bool]:
    """For each of a rank's rows, whether its text is gathered. Every n-th group is chosen, with one n for all ranks.

    Args:
        first: the number of its first row over all ranks.
        count, total: its rows, and those of all ranks.
        budget: about how many texts, at least one group's; None = all.
    """
    groups = max(1, total // num_generations)
    if budget is None or total <= budget:
        return [True] * count
    every = math.ceil(groups / max(1, budget // num_generations))
    return [(row // num_generations) % every == 0 for row in range(first, first + count)]


def kept_of_rank(trainer: Any, count: int, num_generations: int) -> list[bool]:
    """:func:`kept_texts` for this process; every process has ``count`` rows."""
    ranks, rank = trainer.accelerator.num_processes, trainer.accelerator.process_index
    return kept_texts(rank * count, count, ranks * count, num_generations, trainer.text_budget)


def without_texts(rows: Sequence[ScoredRollout], kept: Sequence[bool]) -> list[ScoredRollout]:
    """The rows, where those not kept have lost their texts."""
    return [row if keeps else row.without_text() for row, keeps in zip(rows, kept, strict=True)]


def blanked(kept: Sequence[bool]) -> Callable[[list[Any]], list[Any]]:
    """A function that empties the entries of a rank's list of texts, or of messages, that are not kept."""

    def shorter(items: list[Any]) -> list[Any]:
        if len(items) != len(kept):
            return items
        return [item if keeps else _blank(item) for item, keeps in zip(items, kept, strict=True)]

    return shorter


def _blank(item: Any) -> Any:
    return "" if isinstance(item, str) else [{"role": "assistant", "content": ""}]
