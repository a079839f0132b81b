"""Two-stage training: body and head are two optimizer groups, and a learning rate of 0 holds the body still."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from rlhf_prm.rl.trl_seam import tell_rates


def is_head(name: str) -> bool:
    """Whether a parameter's name (PEFT's prefixes included) belongs to the head."""
    return not {"score", "classifier"}.isdisjoint(name.split("."))


def split_head_groups(optimizer: torch.optim.Optimizer, model: nn.Module, head_learning_rate: float | None) -> None:
    """Split every parameter group into a body and a head one (``group["is_head"]``), before the first update."""
    head = {id(parameter) for name, parameter in model.named_parameters() if is_head(name)}
    groups = []
    for group in optimizer.param_groups:
        for wanted in (False, True):
            members = [parameter for parameter in group["params"] if (id(parameter) in head) == wanted]
            if members:
                rate = head_learning_rate if wanted and head_learning_rate is not None else group["lr"]
                groups.append({**group, "params": members, "lr": rate, "is_head": wanted})
    optimizer.param_groups[:] = groups


def hold_body(scheduler: LRScheduler, updates: int) -> None:
    """Multiply the body groups' learning rate by 0 during the first ``updates`` updates.

    AdamW and SGD then leave the body exactly as it was, under DDP and ZeRO too, where parameters cannot be frozen and
    thawed in the middle of a run; AdamW's moments of the body warm up meanwhile.

    Raises:
        ValueError: the scheduler is not a LambdaLR (transformers' constant, linear, cosine, polynomial, … are).
    """
    if not isinstance(scheduler, LambdaLR):
        raise ValueError(
            f"head_updates needs a schedule that is a function of the update, got {type(scheduler).__name__}: "
            "choose lr_scheduler_type constant, linear, cosine, polynomial or the like"
        )
    groups = scheduler.optimizer.param_groups
    for index, group in enumerate(groups):
        if not group["is_head"]:
            scheduler.lr_lambdas[index] = _held_at_zero(scheduler.lr_lambdas[index], updates)
            group["lr"] = scheduler.base_lrs[index] * scheduler.lr_lambdas[index](scheduler.last_epoch)
    tell_rates(scheduler)


def _held_at_zero(schedule, updates: int):
    return lambda update: float(schedule(update)) if update >= updates else 0.0  # a LambdaLR does not save functions
