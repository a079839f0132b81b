"""HackGuard: a callback of the process trainers against reward hacking."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from rlhf_prm.guard.detectors import measurements
from rlhf_prm.guard.last_good import LastGood, forget_momentum, turn_back_schedule
from rlhf_prm.guard.rules import HELD_OUT, RULES, Arbiter, Rule, Trip, Watch
from rlhf_prm.rl.trl_seam import metrics_of
from rlhf_prm.rl.undisturbed import training_undisturbed
from rlhf_prm.rl.update_batches import UpdateBatches, joined

ACTIONS = ("off", "warn", "anneal", "rollback", "stop")
STATE_FILE = "hack_guard.json"
logger = logging.getLogger(__name__)


class HackGuard(TrainerCallback):
    """The ``detectors`` on the newest rollouts of the trainer, windowed, with an action for an alarm.

    All rollouts generated for an update are measured together and logged as ``hack/<measure>``. A measure that leaves
    what it was in the first updates is a suspicion; held-out accuracy, by the verifier alone, decides whether it is an
    alarm (``rules.Arbiter``), and is looked at without a suspicion too. Every suspicion, verdict and action is a line
    of ``hack_guard.jsonl`` in the run's folder, with its evidence.

    Actions at an alarm:
        ``warn``: log it. ``anneal``: also multiply ``trainer.process_scale`` by ``shrink``. ``rollback``: also put the
        last good weights and optimizer state back, without its momentum. ``stop``: end the training. ``off``: nothing;
        where no detector has another action, nothing is measured, logged or asked either.

    Args:
        trainer: a ``ProcessGRPOTrainer``; may be set later as ``guard.trainer``, before training starts.
        action: one of the above, for every detector; ``actions`` overrides it for single ones ("held_out_accuracy": for
            a fall in accuracy).
        held_out: () → accuracy of the present policy on held-out problems by the verifier; it may call
            ``trainer.evaluate``, training goes on undisturbed. None: the share of correct training rollouts takes its
            place, which is free and noisier.
        problems: how many problems stand behind that accuracy.
        every: updates between asking ``held_out`` while something is suspected or accuracy sinks; ``quiet_every``
            otherwise.
        rules: measure → ``Rule``, over the defaults in ``rules.RULES``; None switches a measure off.
        watch: keywords of ``rules.Watch``; arbiter: keywords of ``rules.Arbiter``.
        shrink: what an action leaves of the process scale. Below ``floor`` it becomes 0: outcome only.
        make_up: lengthen the training by the updates that a rollback threw away, and set the learning rate's schedule
            back by as many.
        texts: most rollouts whose text is measured per update.

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
        rules: Mapping[str, Rule | None] | None = None,
        watch: Mapping[str, Any] | None = None,
        arbiter: Mapping[str, Any] | None = None,
        shrink: float = 0.25,
        floor: float = 0.1,
        make_up: bool = False,
        texts: int = 64,
    ) -> None:
        self.trainer, self.action, self.actions = trainer, action, dict(actions or {})
        self.held_out, self.every, self.quiet_every = held_out, every, quiet_every
        self.shrink, self.floor, self.texts = shrink, floor, texts
        _check(action, self.actions, rules or {}, shrink, every, quiet_every)
        kept = {name: rule for name, rule in {**RULES, **(rules or {})}.items() if rule is not None}
        self.make_up, self._made_up = make_up, 0
        self.watch = Watch(rules=kept, **(watch or {}))
        self.arbiter = Arbiter(problems=problems, **(arbiter or {}))
        self.last_good: LastGood | None = None
        self._batches = UpdateBatches()
        self._asked = self._suspected = self._quiet_until = self._rolled_back = 0

    @property
    def folder(self) -> Path:
        return Path(self.trainer.args.output_dir)

    @property
    def off(self) -> bool:
        """Whether no detector has any action."""
        return {self.action, *self.actions.values()} == {"off"}

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin the log, or go on with the state of the checkpoint that training resumes from."""
        if self.trainer is None:
            raise ValueError("HackGuard has no trainer: pass HackGuard(trainer=…) or set guard.trainer before train()")
        if self.off:
            return
        if "rollback" in {self.action, *self.actions.values()}:
            self.last_good = LastGood(self.trainer, self.folder / "hack_guard")
        saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
        if state.global_step and saved.exists():
            self._load(json.loads(saved.read_text()), state.global_step)
            state.max_steps += self._made_up
            return
        if state.global_step:
            logger.warning("HackGuard: %s has no %s; the guard begins anew", saved.parent.name, STATE_FILE)
        self._write_log([])
        if self.held_out is not None:
            self.arbiter.begin(self._accuracy())
        if self.last_good:
            self.last_good.save(state.global_step)

    def on_substep_end(self, args, state, control, **kwargs):
        """Several generations may feed one update."""
        if not self.off:
            self._batches.look(self.trainer)

    def on_step_end(self, args, state, control, **kwargs):
        """Measure the rollouts of this update; ask the arbiter if there is cause; act."""
        if self.off:
            return
        self._batches.look(self.trainer)
        batches = self._batches.taken()
        if not batches:
            return
        measures, process, outcome = self._measure(batches)
        trips = self.watch.observe(measures, process, outcome)
        logged = metrics_of(self.trainer, "train")
        for name, value in {**measures, "process_scale": self.trainer.process_scale, "suspicions": len(trips)}.items():
            logged[f"hack/{name}"].append(value)
        since = state.global_step - self._asked
        due = self.every if trips or self.arbiter.sinking else self.quiet_every
        if since >= due and state.global_step >= self._quiet_until:
            self._judge(trips, state, control)

    def on_save(self, args, state, control, **kwargs):
        """Leave the guard's state in the checkpoint."""
        if not self.off and self.trainer.accelerator.is_main_process:
            saved = self.folder / f"checkpoint-{state.global_step}" / STATE_FILE
            saved.write_text(json.dumps(self._state()))

    def _measure(self, batches: list) -> tuple[dict[str, float], float, float]:
        rollouts, rows = joined([batch.rollouts for batch in batches]), [row for batch in batches for row in batch.rows]
        rows = rows[:: math.ceil(len(rows) / self.texts)]
        measures = measurements(
            rollouts, [row.prompt for row in rows], [row.text for row in rows], [row.steps for row in rows]
        )
        scores = rollouts.step_scores[rollouts.step_mask]
        right = rollouts.correct[rollouts.scorable].float()
        return measures, float(scores.mean()), float(right.mean()) if len(right) else math.nan

    def _accuracy(self) -> float:
        """Held-out accuracy, the main process's on every rank; without an arbiter the newest outcomes'."""
        if self.held_out is None:
            newest = self.watch.outcome[-self.watch.window :]
            accuracy = sum(newest) / len(newest) if newest else math.nan
        else:
            with training_undisturbed(self.trainer):
                told = self.held_out()
            accuracy = math.nan if told is None else float(told)  # the verifier could judge none of them
        answer = [accuracy]
        if self.trainer.accelerator.num_processes > 1:
            broadcast_object_list(answer)
        return answer[0]

    def _judge(self, trips: list[Trip], state, control) -> None:
        """Ask accuracy; act if it says so, keep the weights if they are better than those kept."""
        self._write_limits()
        update = state.global_step
        suspected = None
        if trips:
            suspected = update - self._suspected if update - self._suspected <= 2 * self.every else 0
            self._suspected = update
        self._asked = update
        if math.isnan(self.arbiter.start):  # no held-out problems
            early = self.watch.outcome[: self.watch.reference]
            self.arbiter.begin(sum(early) / len(early) if early else math.nan)
        accuracy, best, limit = self._accuracy(), self.arbiter.best, self.arbiter.limit
        verdict, action = self.arbiter.judge(accuracy, suspected), "none"
        if self.held_out is None and not trips:
            verdict = "cleared"  # the training outcomes of a few batches are too noisy to be an alarm by themselves
        elif verdict == "fallen":
            trips = [*trips, Trip(HELD_OUT, accuracy, best, limit, when="at best")]
        if verdict != "cleared":
            action = self._action(trips)
            self._act(action, state, control)
        elif self.last_good and self.arbiter.exceeds(accuracy, self.arbiter.kept):
            self.last_good.save(update)
            self.arbiter.kept = accuracy
        if trips:
            self._log(update, trips, verdict, action, accuracy=accuracy, best_accuracy=best, start=self.arbiter.start)

    def _action(self, trips: list[Trip]) -> str:
        """The strongest action of the detectors that tripped; a warning once there is no process reward left."""
        action = max((self.actions.get(trip.detector, self.action) for trip in trips), key=ACTIONS.index)
        return "warn" if action in ("anneal", "rollback") and self.trainer.process_scale == 0.0 else action

    def _act(self, action: str, state, control) -> None:
        if action in ("anneal", "rollback"):
            scale = self.trainer.process_scale * self.shrink
            self.trainer.process_scale = scale if scale >= self.floor else 0.0
        if action == "rollback":
            self.last_good.restore()
            forget_momentum(self.trainer.optimizer)
            if self.make_up:
                thrown_away = state.global_step - max(self.last_good.update, self._rolled_back)
                self._made_up += thrown_away
                state.max_steps += thrown_away
                turn_back_schedule(self.trainer.lr_scheduler, thrown_away)
                _warn_of_too_few_prompts(state)
            self._rolled_back = state.global_step
        if action == "stop":
            control.should_training_stop = True
        self.arbiter.waited = 0
        self._quiet_until = (
            state.global_step + self.watch.window
        )  # let the window fill with rollouts of after the action
        self.watch.newest.clear()

    def _log(self, update: int, trips: list[Trip], verdict: str, action: str, **numbers: float) -> None:
        entry = {
            "step": update,
            "verdict": verdict,
            "action": action,
            "detector": ", ".join(trip.detector for trip in trips),
            "evidence": "; ".join(str(trip) for trip in trips),
            **{name: round(value, 4) for name, value in numbers.items()},
            "process_scale": self.trainer.process_scale,
        }
        if action not in ("none", "off"):
            logger.warning("HackGuard at update %d: accuracy %s, %s (%s)", update, verdict, action, entry["evidence"])
        self._write_log([*self._read_log(), entry])

    def _read_log(self) -> list[dict[str, Any]]:
        """What the main process has written; nothing on the others, which would read it half-written."""
        path = self.folder / "hack_guard.jsonl"
        if not self.trainer.accelerator.is_main_process or not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def _write_log(self, entries: list[dict[str, Any]]) -> None:
        if self.trainer.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "hack_guard.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def _write_limits(self) -> None:
        """The detectors' limits, for the page of the run to draw."""
        if self.trainer.accelerator.is_main_process:
            (self.folder / "hack_limits.json").write_text(json.dumps(self.watch.limits(), indent=1) + "\n")

    def _state(self) -> dict[str, Any]:
        return {
            "watch": self.watch.state(),
            "arbiter": self.arbiter.state(),
            "process_scale": self.trainer.process_scale,
            "asked": self._asked,
            "suspected": self._suspected,
            "made_up": self._made_up,
            "rolled_back": self._rolled_back,
            "last_good": self.last_good.update if self.last_good else None,
            "quiet_until": self._quiet_until,
        }

    def _load(self, state: Mapping[str, Any], update: int) -> None:
        self.watch.load(state["watch"])
        self.arbiter = Arbiter(**state["arbiter"])
        self.trainer.process_scale = state["process_scale"]
        self._asked, self._suspected, self._quiet_until = (state[k] for k in ("asked", "suspected", "quiet_until"))
        self._made_up, self._rolled_back = state["made_up"], state["rolled_back"]
        if self.last_good:
            self.last_good.update = state["last_good"]
        self._write_log([entry for entry in self._read_log() if entry["step"] <= update])


def _warn_of_too_few_prompts(state) -> None:
    """The epochs were planned before the run was lengthened, and transformers ends with them."""
    planned = round(state.global_step / state.epoch * state.num_train_epochs) if state.epoch else state.max_steps
    if planned < state.max_steps:
        logger.warning(
            "HackGuard: lengthened to %d updates, but the planned %d epochs end at %d; give more prompts",
            *(state.max_steps, state.num_train_epochs, planned),
        )


def _check(
    action: str,
    actions: Mapping[str, str],
    rules: Mapping[str, Rule | None],
    shrink: float,
    every: int,
    quiet_every: int,
) -> None:
    for value in (action, *actions.values()):
        if value not in ACTIONS:
            raise ValueError(f"HackGuard action: got {value!r}, expected one of {', '.join(ACTIONS)}")
    unknown = sorted((set(actions) - {*RULES, HELD_OUT}) | (set(rules) - set(RULES)))
    if unknown:
        raise ValueError(f"HackGuard: unknown measures {', '.join(unknown)}; there are {', '.join(RULES)}")
    if not 0.0 <= shrink < 1.0 or min(every, quiet_every) < 1:
        raise ValueError(
            f"HackGuard: got shrink={shrink}, every={every}, quiet_every={quiet_every}, expected 0 ≤ shrink < 1 and "
            "both numbers of updates ≥ 1"
        )
