"""Where a PRM's weights live beside the policy's: a copy on each device, or in CPU memory between calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class Placement(Protocol):
    """Holds a read-out module and makes it ready to run."""

    device: torch.device

    def resident(self): ...  # context manager: the module, on `device`

    def agreed(self, forwards: int, failure: Exception | None) -> int: ...  # how many forwards this rank must make


class Replicate:
    """The whole PRM on every rank's device, all the time. Ranks need not agree on anything."""

    def __init__(self, reader: nn.Module, device: torch.device):
        self.device = device
        self.reader = reader.eval().requires_grad_(False).to(device)

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        yield self.reader

    def agreed(self, forwards: int, failure: Exception | None) -> int:
        return forwards


class Offload(Replicate):
    """In (pinned) CPU memory; on ``device`` while scoring only, copied without blocking. Nothing is copied back."""

    def __init__(self, reader: nn.Module, device: torch.device):
        super().__init__(reader, torch.device("cpu"))
        self.device = device
        self.home = {}
        for tensor in self._tensors():
            self.home[tensor] = tensor.data.pin_memory() if device.type == "cuda" else tensor.data
            tensor.data = self.home[tensor]

    def _tensors(self) -> list[torch.Tensor]:
        return list(dict.fromkeys([*self.reader.parameters(), *self.reader.buffers()]))

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        for tensor, home in self.home.items():
            tensor.data = home.to(self.device, non_blocking=True, copy=True)
        try:
            yield self.reader
        finally:
            for tensor, home in self.home.items():
                tensor.data = home
