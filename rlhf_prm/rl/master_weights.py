"""Float32 master weights: without them, bfloat16 weights swallow the small updates of reinforcement learning.

A bfloat16 number has eight significant bits, so near 0.02 its neighbours are 1.2e-4 apart. AdamW moves every weight by
about the learning rate; at 1e-6 such a step rounds away for all but the weights below 5e-4.
"""

import os
import warnings

import torch
from torch import nn
from transformers import TrainingArguments

LOW_PRECISION = (torch.bfloat16, torch.float16)
SAFE_LEARNING_RATE = 1e-4  # at or above it most weights of a language model change at every step, in bfloat16 too


def has_master_weights(args: TrainingArguments) -> bool:
    """Whether the optimizer of this run steps float32 copies, whatever the dtype of the loaded weights.

    DeepSpeed makes float32 partitions, unless its ``bf16_master_weights_and_grads`` is set; FSDP upcasts what it trains
    when mixed precision is on. DDP and a single process step the weights as they are.
    """
    if args.deepspeed_plugin is not None:
        bf16 = args.deepspeed_plugin.deepspeed_config.get("bf16", {})
        return not bf16.get("bf16_master_weights_and_grads", False)
    fsdp = args.fsdp_plugin_args is not None or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return fsdp and args.mixed_precision != "no"


def refuse_low_precision(dtype: torch.dtype | str | None, args: TrainingArguments, learning_rate: float) -> None:
    """Raise where weights of ``dtype`` would be trained by steps that round away.

    Args:
        dtype: of the trained weights, as torch's or by name; "auto" and None are unknown and pass.
        learning_rate: 0 trains nothing and passes.

    Raises:
        ValueError: bfloat16 or float16 weights without float32 master weights, at a learning rate below 1e-4.
    """
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in LOW_PRECISION or not 0 < learning_rate < SAFE_LEARNING_RATE or has_master_weights(args):
        return
    name = str(dtype).removeprefix("torch.")
    raise ValueError(
        f"learning_rate: got {learning_rate:g} for {name} weights without float32 master copies; steps of that size "
        "round away, so hardly a weight would change. Load the weights as float32 (dtype: float32; with bf16: true the "
        "arithmetic is still done in bfloat16), train LoRA adapters, use DeepSpeed ZeRO or FSDP with mixed precision "
        f"(both keep float32 copies), or raise the learning rate to {SAFE_LEARNING_RATE:g} or more"
    )


def check_master_weights(model: nn.Module, args: TrainingArguments, learning_rate: float) -> None:
    """``refuse_low_precision`` for the weights of ``model`` that are trained.

    A quantized model's adapters only give a warning: TRL keeps them in bfloat16, and no setting changes that.

    Raises:
        ValueError: as ``refuse_low_precision``.
    """
    trained = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    quantized = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    for dtype in LOW_PRECISION:
        if dtype not in trained:
            continue
        try:
            refuse_low_precision(dtype, args, learning_rate)
        except ValueError as error:
            if not quantized:
                raise
            warnings.warn(f"adapters on a quantized model: {error}", stacklevel=3)


def refuse_other_precision(args: TrainingArguments) -> None:
    """Raise if DeepSpeed was launched in a precision that the settings do not ask for; without DeepSpeed, warn.

    DeepSpeed would refuse it too, but only once the models are loaded. Without DeepSpeed transformers follows the
    launch file.

    Raises:
        ValueError: ``mixed_precision`` of the launch is bf16 or fp16, and the settings have neither.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("bf16", "fp16") or args.bf16 or args.fp16:
        return
    what = f"{launched}: got false in the settings and mixed_precision: {launched} in the launch file"
    if args.deepspeed_plugin is not None:
        raise ValueError(
            f"{what}; DeepSpeed needs the same in both: add --{launched} true, or launch with mixed_precision: 'no'"
        )
    warnings.warn(f"{what}: the launch file decides, so the arithmetic is done in {launched}", stacklevel=2)


def refuse_deepspeeds_own(args: TrainingArguments, setting: str) -> None:
    """Raise where DeepSpeed would make the optimizer or the schedule, which then have no groups of our own.

    Args:
        setting: what would be ignored, for the message.

    Raises:
        ValueError: the DeepSpeed config has an ``optimizer`` or a ``scheduler`` section.
    """
    config = {} if args.deepspeed_plugin is None else args.deepspeed_plugin.deepspeed_config
    for section in ("optimizer", "scheduler"):
        if section in config:
            raise ValueError(
                f"{setting}: got a DeepSpeed config with a section {section!r}, expected none, because DeepSpeed would "
                "give all weights one learning rate; take the section out (the trainer's own settings then count)"
            )


def one_dtype_for_zero3(model: nn.Module) -> None:
    """Cast parameters that ZeRO-3 has not partitioned yet to the dtype of those it partitioned during loading.

    A value head or an adapter is made after the weights of the checkpoint, in float32. ZeRO-3 puts all that it trains
    into one buffer, but casts nothing once a part is partitioned. The optimizer steps float32 copies of all
    of it. If nothing is partitioned, this does nothing.
    """
    partitioned = {p.dtype for p in model.parameters() if hasattr(p, "ds_id") and p.is_floating_point()}
    if len(partitioned) != 1:
        return
    [dtype] = partitioned
    for parameter in model.parameters():
        if not hasattr(parameter, "ds_id") and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
