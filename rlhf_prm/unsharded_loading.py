"""unsharded_loading: a model beside a sharded policy is loaded whole, with its own weights, on every rank."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.integrations import deepspeed as hf_deepspeed

FSDP_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"  # accelerate sets it, transformers reads it


@contextmanager
def unsharded_loading() -> Iterator[None]:
    """Inside the context ``from_pretrained`` gives every rank the whole model, as without DeepSpeed and FSDP.

    With a policy at ZeRO's stage 3, transformers shards every model that is loaded after it. Under FSDP's
    ``cpu_ram_efficient_loading`` it gives every rank but the first zeros, which FSDP then overwrites; a PRM, a teacher
    or a judge is not wrapped in FSDP, and would keep them.
    """
    policys = hf_deepspeed._hf_deepspeed_config_weak_ref  # the setting itself; its public getter returns a plain dict
    hf_deepspeed.unset_hf_deepspeed_config()
    fsdps = os.environ.pop(FSDP_LOADING, None)
    try:
        yield
    finally:
        if fsdps is not None:
            os.environ[FSDP_LOADING] = fsdps
        hf_deepspeed._hf_deepspeed_config_weak_ref = policys
