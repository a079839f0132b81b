"""HackGuard: a callback of the process trainers against reward hacking."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlhf_prm.guard.accuracy import asked_accuracy, on_every_rank, update_measures
from rlhf_prm.guard.actions import Actions, refuse_unknown
from rlhf_prm.guard.arbiter import HELD_OUT, Arbiter
from rlhf_prm.guard.detectors import TripRule
from rlhf_prm.guard.journal import Journal
from rlhf_prm.guard.last_good import LastGood, refuse_unknown_momentum
from rlhf_prm.guard.rules import RULES, Trip, Watch
from rlhf_prm.guard.schedule import Schedule
from rlhf_prm.guard.state import GuardState
from rlhf_prm.rl.trl_seam import metrics_of
from rlhf_prm.rl.update_batches import UpdateBatches

STATE_FILE = "hack_guard.json"
logger = logging.getLogger(__name__)


class HackGuard(TrainerCallback):
    """Runs the ``detectors`` on the newest rollouts of the trainer, and takes an action at an alarm.

    All rollouts generated for an update are measured together and logged as ``hack/<measure>``. A measure that departs
    from its value in the first updates is a suspicion; held-out accuracy, by the verifier alone, decides whether it is
    an alarm (``arbiter.Arbiter``), and is checked without a suspicion too. Every suspicion, verdict and action is a
    line of ``hack_guard.jsonl`` in the run's folder, with its evidence.

    Actions at an alarm:
        ``warn``: log it. ``anneal``: also multiply ``trainer.process_scale`` by ``shrink``. ``rollback``: also put the
        last good weights and optimizer state, without its momentum, back. ``stop``: end the training. ``off``: nothing;
        if no detector has another action, nothing is measured or logged either.

    Args:
        trainer: a ``ProcessGRPOTrainer``; may be set later as ``guard.trainer``, before training starts.
        action: one of the above, for every detector; ``actions`` overrides it for single ones ("held_out_accuracy": for
            a fall in accuracy).
        held_out: () → accuracy of the present policy on held-out problems by the verifier; it may call
            ``trainer.evaluate`` without an effect on training. None: the share of correct training rollouts is used
            instead, which is free and noisier.
        problems: how many problems that accuracy is measured on.
        every: updates between calls of ``held_out`` while something is suspected or accuracy falls; ``quiet_every``
            otherwise.
        rules: measure → ``TripRule``, over the defaults in ``rules.RULES``; None switches a measure off.
        watch: keywords of ``rules.Watch``; arbiter: keywords of ``arbiter.Arbiter``.
        shrink: the factor by which an action multiplies the process scale. Below ``floor`` it becomes 0: outcome only.
        make_up: whether to lengthen the training by the updates that a rollback discarded, and set the learning rate's
            schedule back by as many.
        texts: most rollouts whose text is measured per update; ``characters``: most of each, from its end.

    Raises:
        ValueError: an unknown action or measure, a number outside its range.
    """

    def __init__(
        self,
        trainer: Any = None,
        action: str = "warn",
        *,
        actions: Mapping[str, str] | None = None,
        held_out: Callable[[], float | None] | None = None,
        problems: int = 256,
        every: int = 2,
        quiet_every: int = 6,
        rules: Mapping[str, TripRule | None] | None = None,
        watch: Mapping[str, Any] | None = None,
        arbiter: Mapping[str, Any] | None = None,
        shrink: float = 0.25,
        floor: float = 0.1,
        make_up: bool = False,
        texts: int = 64,
        characters: int = 8_000,
    ) -> None:
        for name, value in (("texts", texts), ("characters", characters)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, expected 1 or more")
        self.trainer, self.held_out, self.texts, self.characters = trainer, held_out, texts, characters
        self.actions = Actions(action, dict(actions or {}), shrink, floor, make_up)
        self.schedule = Schedule(every, quiet_every)
        refuse_unknown(set(rules or {}) - set(RULES))
        kept = {name: rule for name, rule in {**RULES, **(rules or {})}.items() if rule is not None}
        self.watch = Watch(rules=kept, **(watch or {}))
        self.state = GuardState(self.watch.memory, Arbiter(problems=problems, **(arbiter or {})))
        self.last_good: LastGood | None = None
        self.batches = UpdateBatches()

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.trainer.args.output_dir)

    @property
    def journal(self) -> Journal:
        """The guard's files in it."""
        return Journal(self.folder, self.trainer.accelerator.is_main_process)

    @property
    def off(self) -> bool:
        """Whether no detector has any action."""
        return self.actions.are_off

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin the log, or continue with the state of the checkpoint that training resumes from."""
        if self.trainer is None:
            raise ValueError("HackGuard has no trainer: pass HackGuard(trainer=…) or set guard.trainer before train()")
        if self.off:
            return
        if "rollback" in self.actions.named:
            optim = getattr(self.trainer.args, "optim", "")
            refuse_unknown_momentum(str(getattr(optim, "value", optim)))
            self.last_good = LastGood(self.trainer, self.folder / "hack_guard")
        saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
        if state.global_step and saved.exists():
            self._resume(GuardState.from_json(saved.read_text()), state)
            return
        if state.global_step:
            logger.warning("HackGuard: %s has no %s; the guard starts from scratch", saved.parent.name, STATE_FILE)
        self.journal.begin()
        if self.held_out is not None:
            self.state.arbiter.begin(self._accuracy())
        if self.last_good:
            self.last_good.save(state.global_step)

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        if not self.off:
            self.batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Measures the rollouts of this update, asks the arbiter if there is cause, and acts."""
        if self.off:
            return
        self.batches.look(self.trainer)
        batches = self.batches.taken()
        if not batches:
            return
        measures, process, outcome = update_measures(batches, self.texts, self.characters)
        trips = self.watch.observe(measures, process, outcome)
        logged = metrics_of(self.trainer, "train")
        for name, value in {**measures, "process_scale": self.trainer.process_scale, "suspicions": len(trips)}.items():
            logged[f"hack/{name}"].append(value)
        if self.schedule.is_due(self.state, state.global_step, suspicious=bool(trips)):
            self._judge(trips, state, control)

    def on_save(self, args, state, control, **kwargs):
        """Save the guard's state in the checkpoint."""
        if not self.off and self.trainer.accelerator.is_main_process:
            last_good = self.last_good.update if self.last_good else None
            text = self.state.to_json(self.watch.kept(), self.trainer.process_scale, last_good)
            (self.folder / f"checkpoint-{state.global_step}" / STATE_FILE).write_text(text)

    def _resume(self, saved: GuardState, state: Any) -> None:
        self.state, self.watch.memory = saved, saved.watch
        self.trainer.process_scale = saved.process_scale
        if self.last_good:
            self.last_good.update = saved.last_good
        self.journal.go_on_from(state.global_step)
        state.max_steps += saved.made_up

    def _accuracy(self) -> float:
        """Held-out accuracy, or that of the newest outcomes, the same on every rank."""
        asks = self.held_out is not None
        accuracy = asked_accuracy(self.trainer, self.held_out) if asks else self.watch.newest_outcome()
        return on_every_rank(self.trainer, accuracy)

    def _judge(self, trips: list[Trip], state: Any, control: Any) -> None:
        """Measure accuracy; act if it has fallen, and keep the weights if they are better than those kept."""
        self.journal.write_limits(self.watch.limits())
        update, arbiter = state.global_step, self.state.arbiter
        suspected = self.schedule.note(self.state, update, suspicious=bool(trips))
        if math.isnan(arbiter.start):  # no held-out problems
            arbiter.begin(self.watch.early_outcome())
        accuracy, best, limit = self._accuracy(), arbiter.best, arbiter.limit
        verdict, action = arbiter.judge(accuracy, suspected), "none"
        if self.held_out is None and not trips:
            verdict = "cleared"  # training outcomes of a few batches are too noisy to cause an alarm alone
        elif verdict == "fallen":
            trips = [*trips, Trip(HELD_OUT, accuracy, best, limit, when="at best")]
        if verdict != "cleared":
            action = self.actions.strongest(trips, self.trainer.process_scale)
            self._act(action, state, control)
        elif self.last_good and arbiter.exceeds(accuracy, arbiter.kept):
            self.last_good.save(update)
            arbiter.kept = accuracy
        if trips:
            accuracies = {"accuracy": accuracy, "best_accuracy": best, "start": arbiter.start}
            self.journal.add(update, trips, verdict, action, accuracies, self.trainer.process_scale)

    def _act(self, action: str, state: Any, control: Any) -> None:
        """Take the action, and let the window fill with later rollouts."""
        self.actions.take(action, self.trainer, self.state, self.last_good, state, control)
        self.state.arbiter.waited = 0
        self.state.quiet_until = state.global_step + self.watch.window
        self.watch.forget_newest()
