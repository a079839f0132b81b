"""Log-probabilities of tokens under the policy in training, as its loss computes them."""

from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import pad

from rlhf_prm.rl.trl_seam import token_log_probs, tokenizer_of


def policy_log_probs(trainer: Any, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> list[Tensor]:
    """log π(y_t | prompt, y_<t) at the trainer's temperature, (T_i,) float32 on the CPU for each rollout.

    All ranks call it with equally many rollouts.
    """
    device, padding = trainer.accelerator.device, tokenizer_of(trainer).pad_token_id
    prompts = [torch.tensor(ids, device=device) for ids in prompt_ids]
    completions = [torch.tensor(ids, device=device) for ids in completion_ids]
    rows = [pad(prompts, padding, padding_side="left"), pad(completions, padding, padding_side="right")]
    masks = [
        pad([torch.ones_like(ids) for ids in prompts], 0, padding_side="left"),
        pad([torch.ones_like(ids) for ids in completions], 0, padding_side="right"),
    ]
    args = trainer.args
    batch = args.per_device_train_batch_size if trainer.model.training else args.per_device_eval_batch_size
    with torch.no_grad(), disable_gradient_checkpointing(trainer.model, args.gradient_checkpointing_kwargs):
        log_probs = token_log_probs(trainer, torch.cat(rows, 1), torch.cat(masks, 1), rows[1].size(1), batch_size=batch)
    return [row[: len(ids)].float().cpu() for row, ids in zip(log_probs, completion_ids, strict=True)]
