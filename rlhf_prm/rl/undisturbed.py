"""Measuring the policy in the middle of its training without a trace in the training."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from rlhf_prm.rl.trl_seam import eval_loaders_kept, evaluation_logs_kept, vllm_update_kept


@contextmanager
def training_undisturbed(trainer: Any) -> Iterator[None]:
    """Inside, the policy may generate and be evaluated; afterwards training goes on as if it had not been.

    ``trainer.evaluate()`` between two updates otherwise cancels the log and the evaluation that are due, leaves the
    model in eval mode (in which TRL files the training's metrics under "eval"), pushes the training rollouts out of the
    completions table, replaces ``last_rollouts``, calls callbacks that count evaluations (early stopping, say), and
    draws from the random numbers that training and resuming rely on. All of that is put back, also after an error. No
    callback is called and nothing is logged inside: log what you want to keep with ``log_row``.
    """
    with ExitStack() as stack:
        stack.enter_context(random_numbers_kept())
        stack.enter_context(_control_kept(trainer))
        stack.enter_context(modes_kept(trainer))
        stack.enter_context(_logs_kept(trainer))
        stack.enter_context(evaluation_logs_kept(trainer))
        stack.enter_context(eval_loaders_kept(trainer))
        stack.enter_context(vllm_update_kept(trainer))
        yield


def log_row(trainer: Any, row: dict[str, float]) -> None:
    """Logs a row of its own at the present update; what training has collected for its next row stays collected."""
    with _control_kept(trainer):
        Trainer.log(trainer, row)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Python's, numpy's and torch's random numbers, those of this process's device too."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _control_kept(trainer: Any) -> Iterator[None]:
    """``should_log`` and its like; transformers clears them at every log and evaluation."""
    control, flags = trainer.control, dict(vars(trainer.control))
    try:
        yield
    finally:
        vars(control).update(flags)
        trainer.control = control


@contextmanager
def modes_kept(trainer: Any) -> Iterator[None]:
    """Train or eval mode of every module, and of an optimizer that has modes (a schedule-free one)."""
    wrapped = getattr(trainer, "model_wrapped", None)
    modules = [*trainer.model.modules(), *(wrapped.modules() if isinstance(wrapped, torch.nn.Module) else ())]
    modes, training = [(module, module.training) for module in modules], trainer.model.training
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        if training and callable(getattr(trainer.optimizer, "train", None)):
            trainer.optimizer.train()


@contextmanager
def _logs_kept(trainer: Any) -> Iterator[None]:
    """What training has logged, and its newest rollouts; no callback is called meanwhile."""
    handler, state = trainer.callback_handler, trainer.state
    kept = {name: getattr(trainer, name) for name in ("last_rollouts", "log_completions") if hasattr(trainer, name)}
    callbacks, loader, logged = handler.callbacks, handler.eval_dataloader, len(state.log_history)
    handler.callbacks, trainer.log_completions = [], False
    try:
        yield
    finally:
        handler.callbacks, handler.eval_dataloader = callbacks, loader
        del state.log_history[logged:]
        for name, value in kept.items():
            setattr(trainer, name, value)
