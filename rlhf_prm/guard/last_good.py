"""Keeps the last good weights of a run on disk, to which HackGuard rolls back."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from rlhf_prm.rl.trl_seam import forget_rollouts, tell_rates

logger = logging.getLogger(__name__)
MOMENTUM = ("exp_avg", "momentum_buffer")  # Adam's and Lion's name for it; SGD's


class LastGood:
    """Saves and restores the trained weights, the optimizer's state and the method's memory, on every rank.

    Plain, DDP and PEFT models: one file per rank with the trainable parameters. DeepSpeed: the engine's own checkpoint.
    PPO's critic is among the weights. The scheduler, the data order and the random state continue: a rollback gives
    other rollouts, not the same ones again. Rollouts that the rejected weights sampled are discarded.

    Raises:
        ValueError: the run uses FSDP, for which neither of the two works.
    """

    def __init__(self, trainer, folder: Path) -> None:
        if trainer.is_fsdp_enabled:
            raise ValueError("HackGuard rollback: got FSDP, expected DDP or DeepSpeed; use action='anneal' under FSDP")
        self.trainer, self.folder = trainer, folder
        self.update: int | None = None

    @property
    def _file(self) -> Path:
        return self.folder / f"last_good_{self.trainer.accelerator.process_index}.pt"

    @property
    def _method(self):
        """The trainer's ``StepAdvantages``; TRL's own trainers have none."""
        return getattr(self.trainer, "step_advantages", None)

    def save(self, update: int) -> None:
        """Keep the present weights, optimizer state and memory as the good ones of ``update``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"memory": self._method.state_dict()} if self._method else {}
        if self.trainer.is_deepspeed_enabled:
            self.trainer.model_wrapped.save_checkpoint(str(self.folder), tag="last_good")
        else:
            kept |= {"weights": self._weights(), "optimizer": self.trainer.optimizer.state_dict()}
        unfinished = self._file.with_suffix(".part")
        torch.save(kept, unfinished)
        unfinished.replace(self._file)
        self.update = update

    def restore(self) -> None:
        """Restore them. Every rank has to call it at the same update.

        Raises:
            FileNotFoundError: nothing was kept.
        """
        rates = [group["lr"] for group in self.trainer.optimizer.param_groups]
        kept = torch.load(self._file, map_location="cpu", weights_only=True)
        if self.trainer.is_deepspeed_enabled:
            self._restore_engine()
        else:
            self._restore_weights(kept)
        if self._method:
            self._method.load_state_dict(kept.get("memory", {}))
        for group, rate in zip(self.trainer.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # the schedule has advanced since then
        forget_rollouts(self.trainer)

    def _restore_engine(self) -> None:
        found, _ = self.trainer.model_wrapped.load_checkpoint(
            str(self.folder), tag="last_good", load_lr_scheduler_states=False
        )
        if found is None:
            raise FileNotFoundError(f"HackGuard rollback: no DeepSpeed checkpoint in {self.folder / 'last_good'}")

    def _restore_weights(self, kept: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in self._weights().items():
                weight.copy_(kept["weights"][name])
        self.trainer.optimizer.load_state_dict(kept["optimizer"])

    def _weights(self) -> dict[str, torch.Tensor]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}


def forget_momentum(optimizer) -> None:
    """Zero the first moments of an optimizer, plain or DeepSpeed's: they point in the direction of earlier gradients.

    Otherwise they keep that direction for about 1 / (1 − β₁) updates, whatever the gradients are. The second moments
    stay, so that the next steps are small.
    """
    for state in optimizer.state.values():
        for name in MOMENTUM:
            if isinstance(state.get(name), torch.Tensor):
                state[name].zero_()


def refuse_unknown_momentum(optim: str) -> None:
    """Raise for an optimizer whose first moments are kept in another form, so that a rollback would not forget them.

    Args:
        optim: transformers' name of it.

    Raises:
        ValueError: it keeps 8-bit or 4-bit states.
    """
    if any(bits in optim for bits in ("8bit", "4bit")):
        raise ValueError(
            f"HackGuard rollback: got optim {optim!r}, whose momentum it cannot reset, expected one with states in "
            "full precision (adamw_torch), or action='anneal'"
        )


def turn_back_schedule(scheduler, updates: int) -> None:
    """Set a learning-rate schedule back by ``updates``, so that their rates are repeated.

    This works for the schedules of transformers' ``get_scheduler``, plain or wrapped by accelerate; others only warn.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(schedule, LambdaLR):
        logger.warning("HackGuard make_up: %s cannot be set back; its rates continue", type(schedule).__name__)
        return
    schedule.last_epoch -= updates
    factors = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, rate, factor in factors:
        group["lr"] = rate * factor(schedule.last_epoch)
    tell_rates(schedule)
