"""The actions at an alarm: choosing the one that the detectors ask for, and taking it."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf_prm.guard.arbiter import HELD_OUT
from rlhf_prm.guard.last_good import LastGood, forget_momentum, turn_back_schedule
from rlhf_prm.guard.rules import RULES, Trip
from rlhf_prm.guard.state import GuardState

ACTIONS = ("off", "warn", "anneal", "rollback", "stop")  # from the weakest to the strongest
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Actions:
    """Which action an alarm has, and what an action does.

    Args:
        default: for every detector; ``of_detectors`` overrides it for single ones.
        shrink: the factor by which an action multiplies the process scale. Below ``floor`` it becomes 0.
        make_up: whether to lengthen the training by the updates that a rollback discarded.

    Raises:
        ValueError: an unknown action or detector, a ``shrink`` outside its range.
    """

    default: str = "warn"
    of_detectors: Mapping[str, str] = field(default_factory=dict)
    shrink: float = 0.25
    floor: float = 0.1
    make_up: bool = False

    def __post_init__(self) -> None:
        for action in self.named:
            if action not in ACTIONS:
                raise ValueError(f"HackGuard action: got {action!r}, expected one of {', '.join(ACTIONS)}")
        refuse_unknown(set(self.of_detectors) - {*RULES, HELD_OUT})
        if not 0.0 <= self.shrink < 1.0:
            raise ValueError(f"HackGuard: got shrink={self.shrink}, expected 0 ≤ shrink < 1")

    @property
    def named(self) -> set[str]:
        """All actions that an alarm could have."""
        return {self.default, *self.of_detectors.values()}

    @property
    def are_off(self) -> bool:
        """Whether no detector has any action."""
        return self.named == {"off"}

    def strongest(self, trips: Iterable[Trip], process_scale: float) -> str:
        """The strongest action of the detectors that tripped; a warning once there is no process reward left."""
        action = max((self.of_detectors.get(trip.detector, self.default) for trip in trips), key=ACTIONS.index)
        return "warn" if action in ("anneal", "rollback") and process_scale == 0.0 else action

    def take(
        self, action: str, trainer: Any, state: GuardState, last_good: LastGood | None, training: Any, control: Any
    ) -> None:
        """Do what ``action`` says to the trainer; ``training`` and ``control`` are transformers' of a callback."""
        if action in ("anneal", "rollback"):
            scale = trainer.process_scale * self.shrink
            trainer.process_scale = scale if scale >= self.floor else 0.0
        if action == "rollback":
            last_good.restore()
            forget_momentum(trainer.optimizer)
            if self.make_up:
                self._lengthen(trainer, state, last_good, training)
            state.rolled_back = training.global_step
        if action == "stop":
            control.should_training_stop = True

    def _lengthen(self, trainer: Any, state: GuardState, last_good: LastGood, training: Any) -> None:
        """Lengthen the training by the updates since the restored weights, counting each of them once."""
        thrown_away = training.global_step - max(last_good.update, state.rolled_back)
        state.made_up += thrown_away
        training.max_steps += thrown_away
        turn_back_schedule(trainer.lr_scheduler, thrown_away)
        _warn_of_too_few_prompts(training)


def refuse_unknown(measures: Iterable[str]) -> None:
    """Raise a ValueError that lists the unknown measures, if there are any."""
    if unknown := sorted(measures):
        raise ValueError(f"HackGuard: unknown measures {', '.join(unknown)}; there are {', '.join(RULES)}")


def _warn_of_too_few_prompts(training: Any) -> None:
    """Warn if the epochs, which were planned before the run was lengthened, end too early."""
    steps, epochs = training.global_step, training.num_train_epochs
    planned = round(steps / training.epoch * epochs) if training.epoch else training.max_steps
    if planned < training.max_steps:
        logger.warning(
            "HackGuard: lengthened to %d updates, but the planned %d epochs end at %d; give more prompts",
            *(training.max_steps, epochs, planned),
        )
