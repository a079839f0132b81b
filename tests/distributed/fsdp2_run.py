"""``ranks.py`` under FSDP2 on a CPU.

accelerate takes FSDP for GPUs alone: on a CPU it reads the settings and wraps the model in DDP, without a word. Here it
is told that two CPU processes may be FSDP too; all else is accelerate's, transformers' and TRL's own.
"""

from accelerate.state import AcceleratorState, DistributedType, PartialState

from tests.distributed.ranks import main

_made = AcceleratorState.__init__


def _fsdp_on_cpu(self, *arguments, fsdp_plugin=None, **keywords) -> None:
    _made(self, *arguments, fsdp_plugin=fsdp_plugin, **keywords)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as accelerate does on GPUs


if __name__ == "__main__":
    AcceleratorState.__init__ = _fsdp_on_cpu
    main()
