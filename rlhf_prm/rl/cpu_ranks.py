"""Preparations that several processes on a CPU need and GPUs do not."""

import os
from functools import cache

import torch


def prepare_cpu_ranks() -> None:
    """Make DDP and DeepSpeed work over gloo on a machine without a GPU; with a GPU it does nothing.

    It keeps DeepSpeed from compiling its shared-memory all-reduce (one to two minutes, needs a compiler; gloo does
    the same work), and teaches ``torch.load`` the location ``cpu:<rank>``, to which transformers maps an optimizer's
    checkpoint. Call it before the training arguments are made: they start the process group.
    """
    if torch.cuda.is_available():
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _know_numbered_cpus()


@cache  # torch takes one registration per process
def _know_numbered_cpus() -> None:
    torch.serialization.register_package(50, lambda storage: None, _on_numbered_cpu)


def _on_numbered_cpu(storage, location: str):
    return storage if location.startswith("cpu:") else None
