"""Server mode's weight sync without CUDA: the TCP store of the process group carries what NCCL would.

Trainer and server open that group anyway, to meet in it. Three names are replaced, on both sides: vLLM's NCCL
communicator, its CUDA streams, and the index of the CUDA device. TRL's client and its requests, vLLM's transfer engine,
its packing of tensors and its reload are their own. NCCL itself stays untested.
"""

import torch
from trl.generation.vllm_client import VLLMClient
from vllm.distributed.device_communicators import pynccl
from vllm.distributed.weight_transfer import packed_tensor


class StoreCommunicator:
    """For vLLM's ``PyNcclCommunicator``, of which weight transfer uses the broadcast alone."""

    def __init__(self, group, device) -> None:
        self.group = group

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        tensor.copy_(self.group.broadcast(tensor, src))


class NoStream:
    """For a CUDA stream: everything is done at once."""

    def synchronize(self) -> None:
        pass


class StoreClient(VLLMClient):
    """TRL's client, which asks for a CUDA device because NCCL needs one."""

    def init_communicator(self, device=0) -> None:
        super().init_communicator("cuda")  # no index, so TRL sets no device


def send_through_the_store() -> None:
    """Replaces the three names in this process."""
    pynccl.PyNcclCommunicator = StoreCommunicator
    packed_tensor._get_streams = lambda device, count: [NoStream()] * count
    torch.accelerator.current_device_index = lambda: 0
