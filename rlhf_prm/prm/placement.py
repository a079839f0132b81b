"""Where a PRM's weights are kept: a copy on each device, in CPU memory between calls, or sharded over the ranks."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from rlhf_prm.unsharded_loading import unsharded_loading


@runtime_checkable
class Placement(Protocol):
    """Holds a read-out module and makes it available on a device."""

    device: torch.device

    def resident(self) -> AbstractContextManager[nn.Module]: ...  # the module, on `device`

    def agreed(self, forwards: int, failure: Exception | None) -> int: ...  # how many forwards this rank must make


class Replicate:
    """The whole PRM stays on every rank's device. Ranks need not agree on anything."""

    def __init__(self, reader: nn.Module, device: torch.device):
        self.device = device
        self.reader = reader.eval().requires_grad_(False).to(device)

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        yield self.reader

    @contextmanager
    def learning(self) -> Iterator[nn.Module]:
        """The module with gradients switched on, on ``device``; changes of its weights are kept."""
        with self.resident() as reader:
            reader.requires_grad_(True)
            try:
                yield reader
            finally:
                reader.zero_grad(set_to_none=True)
                reader.requires_grad_(False)
                self._keep()

    def _keep(self) -> None:
        """Keep the changed weights; here they already are in place."""

    def agreed(self, forwards: int, failure: Exception | None) -> int:
        return forwards


class Offload(Replicate):
    """The PRM is in (pinned) CPU memory and is copied to ``device``, without blocking, only while it scores."""

    def __init__(self, reader: nn.Module, device: torch.device):
        super().__init__(reader, torch.device("cpu"))
        self.device = device
        self.home = {}
        for tensor in self._tensors():
            self.home[tensor] = tensor.data.pin_memory() if device.type == "cuda" else tensor.data
            tensor.data = self.home[tensor]

    def _tensors(self) -> list[torch.Tensor]:
        return list(dict.fromkeys([*self.reader.parameters(), *self.reader.buffers()]))

    def _keep(self) -> None:
        for tensor, home in self.home.items():
            home.copy_(tensor.data)

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        for tensor, home in self.home.items():
            tensor.data = home.to(self.device, non_blocking=True, copy=True)
        try:
            yield self.reader
        finally:
            for tensor, home in self.home.items():
                tensor.data = home


class Zero3:
    """The PRM is sharded over the ranks with DeepSpeed's stage 3, whatever stage the policy uses.

    Every forward gathers weights from all ranks, so all ranks must make the same number of forwards: they agree on the
    largest, and those with less work make dummy forwards.
    """

    def __init__(self, reader: nn.Module, device: torch.device):
        import deepspeed

        self.device = device
        dtype = next(reader.parameters()).dtype
        self.reader, *_ = deepspeed.initialize(model=reader.eval().requires_grad_(False), config=zero3_config(dtype))

    @contextmanager
    def resident(self) -> Iterator[nn.Module]:
        yield self.reader

    def agreed(self, forwards: int, failure: Exception | None) -> int:
        """The largest number of forwards of any rank. If one rank has failed, every rank raises, so that none waits."""
        numbers = torch.tensor([forwards, int(failure is not None)], device=self.device)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        if numbers[1] and failure is None:
            raise RuntimeError("scoring stopped: another rank could not prepare its rollouts (see its error).")
        return int(numbers[0])


def zero3_config(dtype: torch.dtype) -> dict:
    """DeepSpeed's settings for a frozen model that is sharded and only read."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "fp16": {"enabled": dtype == torch.float16},
        # small parameters are sharded too: a frozen model has no update that would refresh the ranks' copies
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    }


@contextmanager
def loading_for(placement: str, dtype: torch.dtype) -> Iterator[None]:
    """Inside the context ``from_pretrained`` shards as it loads for ``"zero3"``, and does not for other placements.

    Whether a PRM is sharded is decided by its placement, and not by how the policy is trained.
    """
    with unsharded_loading():
        own = HfDeepSpeedConfig(zero3_config(dtype)) if placement == "zero3" else None
        try:
            yield
        finally:
            del own  # transformers has only a weak reference to it, so it had to live until here
