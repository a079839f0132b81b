"""Measures the policy in the middle of its training without an effect on the training."""

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
    """Inside, the policy may generate and be evaluated; afterwards training continues as if nothing had happened.

    ``trainer.evaluate()`` between two updates otherwise cancels the log and the evaluation that are due, leaves the
    model in eval mode (in which TRL files the training's metrics under "eval"), pushes the training rollouts out of the
    completions table, replaces ``last_rollouts``, calls callbacks that count evaluations (such as early stopping), and
    draws from the random numbers that training and resuming rely on. All of that is restored, also after an error. No
    callback is called and nothing is logged inside; use ``log_row`` for what should be logged.
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
    """Log a separate row at the present update; metrics collected for training's next row are kept."""
    with _control_kept(trainer):
        Trainer.log(trainer, row)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore afterwards the random states of Python, numpy and torch, including this process's device."""
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
    """Restore ``should_log`` and similar flags afterwards; transformers clears them at every log and evaluation."""
    control, flags = trainer.control, dict(vars(trainer.control))
    try:
        yield
    finally:
        vars(control).update(flags)
        trainer.control = control


@contextmanager
def modes_kept(trainer: Any) -> Iterator[None]:
    """Restore afterwards the train or eval mode of every module, and of an optimizer with modes (schedule-free)."""
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
    """Restore the collected metrics and the newest rollouts of training afterwards; no callback is called inside."""
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
