"""Collective operations that ranks need outside a trainer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes of this run; a single process has rank 0 of 1.

    All ranks call the same methods in the same order.
    """

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """The result of ``make`` on rank 0, on every rank. If it raises there, every rank raises.

        Raises:
            ValueError: on the other ranks, with the message of rank 0's error.
        """
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        failure: Exception | None = None
        if self.rank == 0:
            try:
                told[0] = make()
            except Exception as error:  # whatever it is, the other ranks are waiting for the result
                failure, told[1] = error, f"{type(error).__name__}: {error}"
        dist.broadcast_object_list(told)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise ValueError(f"rank 0 failed: {told[1]}")
        return told[0]

    def gathered(self, rows: list[Any]) -> list[Any]:
        """The rows of all ranks, those of a rank adjacent."""
        if self.size == 1:
            return rows
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, rows)
        return [row for part in found for row in part]

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors added up over all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)
        return list(tensors)

    def like_first(self, tensors: Sequence[Tensor]) -> None:
        """Copy rank 0's values to every rank, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)
