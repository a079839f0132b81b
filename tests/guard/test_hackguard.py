"""HackGuard on made-up rollouts: what trips, what accuracy says to it, what is done about it, and resuming."""

import itertools
import json
import math
from collections import defaultdict
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from reward import StepRollouts
from rlhf_prm.guard.accuracy import update_measures
from rlhf_prm.guard.arbiter import Arbiter
from rlhf_prm.guard.detectors import TripRule
from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.guard.rules import Watch
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.rollout_scoring import ScoredRollout
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def batch(update: int, steps: int, share_right: float, rollouts: int = 20, mode: str = "train") -> SimpleNamespace:
    """Rollouts with ``steps`` steps each, the first ``share_right`` of them right."""
    right = [i < round(share_right * rollouts) for i in range(rollouts)]
    texts = [
        [f"{i} plus {k} is {7 * i + k}" for k in range(steps - 1)] + ["Answer: \\boxed{1}"] for i in range(rollouts)
    ]
    scores = [[0.9 if hit else 0.4] * steps for hit in right]
    rows = [
        ScoredRollout("2+2?", "\n\n".join(row), row, [3] * steps, score, float(hit), "correct" if hit else "incorrect")
        for row, score, hit in zip(texts, scores, right, strict=True)
    ]
    ones = torch.ones(rollouts, steps)
    data = StepRollouts(torch.tensor(scores), ones.bool(), 3 * ones.long(), torch.tensor(right).float(), 4)
    return SimpleNamespace(rows=rows, rollouts=data, step_advantages=ones, mode=mode, update=update)


class MadeUpRun:
    """A trainer without training: its batches and its held-out accuracy follow two given functions of the update."""

    def __init__(self, folder, steps, accuracy, **arguments):
        self.steps, self.accuracy, self.update = steps, accuracy, 0
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.args = SimpleNamespace(output_dir=str(folder))
        self.accelerator = SimpleNamespace(
            is_main_process=True, num_processes=1, process_index=0, unwrap_model=lambda model: model
        )
        self.is_fsdp_enabled = self.is_deepspeed_enabled = False
        self.lr_scheduler = None
        self.process_scale, self.last_rollouts = 1.0, None
        self._metrics, self._logs = {"train": defaultdict(list), "eval": defaultdict(list)}, {}
        self.callback_handler, self.log_completions = SimpleNamespace(callbacks=[], eval_dataloader=None), False
        arguments.setdefault("texts", 4)
        arguments.setdefault("held_out", lambda: self.accuracy(self.update))
        self.guard = HackGuard(self, **arguments)
        self.control, self.state = TrainerControl(), TrainerState(max_steps=80)

    def begin(self, update: int = 0):
        self.state.global_step = update
        self.guard.on_train_begin(None, self.state, self.control)
        return self

    def go(self, first: int, last: int):
        for self.update in range(first, last + 1):
            self.last_rollouts = batch(self.update, self.steps(self.update), self.accuracy(self.update))
            self.optimizer.zero_grad()
            self.model(torch.full((1, 2), float(self.update))).sum().backward()
            self.optimizer.step()
            self.state.global_step, self.state.epoch = self.update, self.update / 60
            self.guard.on_step_end(None, self.state, self.control)
            if self.control.should_training_stop:
                break
        return self

    @property
    def log(self) -> list[dict]:
        return self.guard.journal.entries()


def inflating(update: int) -> int:
    return 4 if update <= 10 else min(12, 4 + (update - 10))


def collapsing(update: int) -> float:
    return 0.5 if update <= 12 else max(0.0, 0.5 - 0.03 * (update - 12))


def rising(update: int) -> float:
    return min(0.9, 0.3 + 0.02 * update)


def test_a_collapse_is_called_before_accuracy_has_halved(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing).begin().go(1, 30)
    alarms = [entry for entry in run.log if entry["action"] == "warn"]
    assert alarms and collapsing(alarms[0]["step"]) > 0.25
    assert "steps_per_rollout" in alarms[0]["detector"] and alarms[0]["verdict"] == "fallen"
    assert "at first 4" in alarms[0]["evidence"] and alarms[0]["best_accuracy"] == 0.5
    assert run.process_scale == 1.0 and not run.control.should_training_stop
    assert run._metrics["train"]["hack/steps_per_rollout"][:12] == [4.0] * 10 + [5.0, 6.0]


def test_the_same_rollouts_with_rising_accuracy_are_cleared(tmp_path):
    run = MadeUpRun(tmp_path, inflating, rising).begin().go(1, 40)
    assert {entry["verdict"] for entry in run.log} == {"cleared"} and {e["action"] for e in run.log} == {"none"}


def test_without_a_change_nothing_is_suspected(tmp_path):
    run = MadeUpRun(tmp_path, lambda _: 4, collapsing).begin().go(1, 12)
    assert run.log == [] and run._metrics["train"]["hack/suspicions"] == [0] * 12


def test_long_suspicion_without_a_rise_is_an_alarm(tmp_path):
    run = MadeUpRun(tmp_path, inflating, lambda _: 0.5).begin().go(1, 50)
    first = next(entry for entry in run.log if entry["action"] == "warn")
    assert first["verdict"] == "stagnant" and 30 <= first["step"] - run.log[0]["step"] <= 33


def test_accuracy_that_sinks_is_asked_for_more_often(tmp_path):
    asked, sunk = [], {12: 0.44}  # nearer to the limit, 0.41, than to the best, 0.5
    run = MadeUpRun(tmp_path, lambda _: 4, lambda update: sunk.get(update, 0.5), quiet_every=6)
    run.guard.held_out = lambda: asked.append(run.update) or run.accuracy(run.update)
    run.begin().go(1, 20)
    assert asked == [0, 6, 12, 14, 20]


def test_without_held_out_problems_the_training_outcomes_decide(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing, held_out=None).begin().go(1, 30)
    alarms = [entry for entry in run.log if entry["action"] == "warn"]
    assert alarms and alarms[0]["verdict"] == "fallen" and alarms[0]["start"] == 0.5


def test_anneal_shrinks_until_the_process_is_off(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing, action="anneal", shrink=0.2).begin().go(1, 40)
    scales = [entry["process_scale"] for entry in run.log if entry["action"] == "anneal"]
    assert scales == [0.2, 0.0] and run.process_scale == 0.0  # 0.04 is below the floor
    assert run.log[-1]["action"] == "warn"  # nothing is left to shrink
    assert run._metrics["train"]["hack/process_scale"][-1] == 0.0


def test_rollback_puts_weights_and_optimizer_back_and_keeps_the_learning_rate(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing, action="rollback").begin()
    begun = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    run.go(1, 12)
    assert not torch.equal(run.model.weight, begun["weight"])
    run.guard.last_good.save(12)
    good = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    moments = run.optimizer.state_dict()["state"][0]["exp_avg_sq"].clone()
    run.optimizer.param_groups[0]["lr"] = 0.05
    alarm = 13
    while not [entry for entry in run.log if entry["action"] == "rollback"]:
        run.go(alarm, alarm)
        alarm += 1
    assert all(torch.equal(weight, good[name]) for name, weight in run.model.state_dict().items())
    assert torch.equal(run.optimizer.state_dict()["state"][0]["exp_avg_sq"], moments)
    assert not run.optimizer.state_dict()["state"][0]["exp_avg"].any()  # the momentum pulled away from here
    assert run.optimizer.param_groups[0]["lr"] == 0.05 and run.process_scale == 0.25
    assert run.state.max_steps == 80


def test_updates_that_a_rollback_threw_away_are_made_up_also_after_resuming(tmp_path, caplog):
    run = MadeUpRun(tmp_path, inflating, collapsing, action="rollback", make_up=True).begin()
    run.state.num_train_epochs = 1
    run.go(1, 24)
    first, second = [entry["step"] for entry in run.log if entry["action"] == "rollback"]
    assert run.guard.last_good.update == 0
    assert "planned 1 epochs end at 60" in caplog.text and "lengthened to" in caplog.text
    assert "NoneType cannot be set back" in caplog.text  # a schedule that is not one of transformers'
    assert run.state.max_steps == 80 + first + (second - first)  # each update is made up once
    (tmp_path / "checkpoint-24").mkdir()
    run.guard.on_save(None, TrainerState(global_step=24), run.control)
    resumed = MadeUpRun(tmp_path, inflating, collapsing, action="rollback", make_up=True).begin(24)
    assert resumed.state.max_steps == run.state.max_steps and resumed.guard.last_good.update == 0
    assert resumed.guard.state.rolled_back == second


def test_weights_are_kept_when_accuracy_has_risen_by_more_than_noise(tmp_path):
    # 256 problems at 0.3: 2·√(2·0.21/256) = 0.081, so 0.42 at update 6 is kept, 0.50 at update 12 is not, 0.58 is
    accuracy = {6: 0.42, 12: 0.50, 18: 0.58}
    run = MadeUpRun(tmp_path, lambda _: 4, lambda update: accuracy.get(update, 0.3), action="rollback").begin()
    kept = [(run.go(u, u).guard.last_good.update, run.guard.state.arbiter.best) for u in range(1, 19)]
    assert kept[4] == (0, 0.3) and kept[5] == (6, 0.42) and kept[11] == (6, 0.5) and kept[17] == (18, 0.58)


def test_a_fall_in_accuracy_is_an_alarm_though_no_measure_moves(tmp_path):
    run = MadeUpRun(tmp_path, lambda _: 4, collapsing, actions={"held_out_accuracy": "stop"}).begin().go(1, 19)
    (alarm,) = run.log
    assert alarm["detector"] == "held_out_accuracy" and alarm["verdict"] == "fallen" and alarm["action"] == "stop"
    assert alarm["step"] == 18 and "held_out_accuracy 0.32, at best 0.5, limit 0.412" in alarm["evidence"]
    assert run.control.should_training_stop


def test_without_held_out_problems_a_fall_alone_is_no_alarm(tmp_path):
    run = MadeUpRun(tmp_path, lambda _: 4, collapsing, held_out=None).begin().go(1, 19)
    assert run.log == []


def test_stop_ends_the_training_and_single_detectors_can_differ(tmp_path):
    arguments = {"action": "warn", "actions": {"steps_per_rollout": "stop"}}
    run = MadeUpRun(tmp_path, inflating, collapsing, **arguments).begin().go(1, 40)
    assert run.control.should_training_stop and run.log[-1]["action"] == "stop" and run.update < 30


def test_off_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf_prm.guard.guard.update_measures", lambda *_: pytest.fail("measured"))
    run = MadeUpRun(tmp_path, inflating, collapsing, action="off", held_out=lambda: pytest.fail("asked"))
    run.begin().go(1, 30)
    run.guard.on_save(None, TrainerState(global_step=30), run.control)
    assert not list(tmp_path.iterdir()) and not run._metrics["train"] and run.guard.batches.taken() == []


def test_off_with_one_detector_that_warns_is_not_off(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing, action="off", actions={"steps_per_rollout": "warn"})
    run.begin().go(1, 30)
    assert "warn" in {entry["action"] for entry in run.log}


def test_all_generations_of_an_update_are_measured_as_one_batch(tmp_path):
    """Accumulation 2 with steps_per_generation 1: a batch of 4 steps per rollout and one of 8, of different width."""
    run = MadeUpRun(tmp_path, lambda _: 4, rising).begin()
    run.last_rollouts = batch(1, 4, 0.5)
    run.guard.on_substep_end(None, run.state, run.control)
    run.last_rollouts = batch(1, 8, 0.0)
    run.guard.on_step_end(None, TrainerState(global_step=1), run.control)
    measured = run._metrics["train"]
    assert measured["hack/steps_per_rollout"] == [6.0] and len(run.guard.watch.memory.first) == 1
    assert measured["hack/tokens_per_rollout"] == [18.0]
    # right: 10 of 40, means 0.9 beside 0.4 everywhere else
    assert measured["hack/auroc"] == [1.0] and run.guard.watch.memory.outcome == [0.25]
    assert run.guard.watch.memory.process == [pytest.approx((10 * 4 * 0.9 + 10 * 4 * 0.4 + 20 * 8 * 0.4) / 240)]


def test_a_checkpoint_without_the_guards_state_is_said(tmp_path, caplog):
    MadeUpRun(tmp_path, inflating, collapsing).begin(15)
    assert "checkpoint-15 has no hack_guard.json; the guard starts from scratch" in caplog.text


def test_batches_of_the_evaluation_and_batches_seen_before_are_left_out(tmp_path):
    run = MadeUpRun(tmp_path, lambda _: 4, rising).begin().go(1, 3)
    run.guard.on_step_end(None, TrainerState(global_step=4), run.control)
    run.last_rollouts = batch(5, 9, 0.1, mode="eval")
    run.guard.on_step_end(None, TrainerState(global_step=5), run.control)
    assert len(run.guard.watch.memory.first) == 3


def test_resumed_in_the_middle_it_decides_the_same(tmp_path):
    whole = MadeUpRun(tmp_path / "whole", inflating, collapsing, action="anneal").begin().go(1, 30)
    cut = MadeUpRun(tmp_path / "cut", inflating, collapsing, action="anneal").begin().go(1, 15)
    (tmp_path / "cut" / "checkpoint-15").mkdir()
    cut.guard.on_save(None, TrainerState(global_step=15), cut.control)
    cut.go(16, 22)  # lost with the process that was killed
    resumed = MadeUpRun(tmp_path / "cut", inflating, collapsing, action="anneal").begin(15).go(16, 30)
    assert resumed.log == whole.log and resumed.process_scale == whole.process_scale


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"action": "explode"}, "expected one of off, warn, anneal, rollback, stop"),
        ({"actions": {"steps": "warn"}}, "unknown measures steps"),
        ({"rules": {"held_out_accuracy": None}, "actions": {"auroc": "warn"}}, "unknown measures held_out_accuracy"),
        ({"shrink": 1.0}, "0 ≤ shrink < 1"),
        ({"quiet_every": 0}, "quiet_every=0"),
    ],
)
def test_bad_arguments(tmp_path, arguments, told):
    with pytest.raises(ValueError, match=told):
        HackGuard(None, **arguments)


def test_rollback_is_refused_under_fsdp(tmp_path):
    run = MadeUpRun(tmp_path, inflating, collapsing, action="rollback")
    run.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="FSDP"):
        run.begin()


def test_a_guard_without_a_trainer_says_so():
    with pytest.raises(ValueError, match="HackGuard has no trainer"):
        HackGuard().on_train_begin(None, TrainerState(), TrainerControl())


def watch(early: list[float], late: list[float], rule: TripRule) -> list:
    watch = Watch(rules={"x": rule}, reference=len(early), window=len(late))
    return [watch.observe({"x": value}, 0.5, 0.5) for value in [*early, *late]][-1]


def test_limits_by_hand():
    # early mean 10, s = 1, n = 4; window of 4: standard error √(1/4 + 1/4) = 0.7071; 3 of them: 2.1213
    early = [9.0, 11.0, 9.0, 11.0]  # s = √(4/3) = 1.1547, so 3 standard errors are 2.4495
    assert watch(early, [12.4] * 4, TripRule("up", 1.0)) == []
    trip = watch(early, [12.5] * 4, TripRule("up", 1.0))[0]
    assert trip.limit == pytest.approx(12.44949) and trip.reference == 10.0 and trip.value == 12.5
    assert watch(early, [12.9] * 4, TripRule("up", 0.3, relative=True)) == []
    assert watch(early, [13.1] * 4, TripRule("up", 0.3, relative=True))[0].limit == pytest.approx(13.0)
    assert watch(early, [7.5] * 4, TripRule("down", 1.0))[0].limit == pytest.approx(7.55051)
    assert watch(early, [12.5] * 4, TripRule("down", 1.0)) == []


def test_a_floor_below_which_nothing_trips():
    assert watch([0.05, 0.05], [0.19, 0.19], TripRule("up", 0.05, least=0.2)) == []
    assert watch([0.05, 0.05], [0.21, 0.21], TripRule("up", 0.05, least=0.2))[0].limit == 0.2
    assert watch([0.9, 0.9], [0.7, 0.7], TripRule("down", 0.15, least=0.65)) == []
    assert watch([0.9, 0.9], [0.6, 0.6], TripRule("down", 0.15, least=0.65))[0].limit == 0.65


def test_missing_values_are_left_out():
    nan = math.nan
    assert watch([1.0, nan, 1.0], [nan, nan], TripRule("up", 0.5)) == []
    assert watch([1.0, nan, 1.0], [nan, 2.0], TripRule("up", 0.5))[0].value == 2.0
    assert watch([nan, nan], [2.0, 2.0], TripRule("up", 0.5)) == []


def test_arbiter_by_hand():
    # start 0.5 on 200 problems: standard error of a difference √(2·0.25/200) = 0.05, two of them 0.10
    arbiter = Arbiter(problems=200, patience=10)
    arbiter.begin(0.5)
    assert arbiter.limit == pytest.approx(0.4) and not arbiter.sinking
    assert arbiter.judge(0.41, 3) == "cleared" and arbiter.waited == 3 and arbiter.sinking
    assert arbiter.judge(0.39, 3) == "fallen" and arbiter.judge(0.39, None) == "fallen" and arbiter.waited == 3
    assert arbiter.judge(0.59, 7) == "stagnant" and arbiter.best == 0.59
    assert arbiter.judge(0.5, None) == "cleared" and arbiter.waited == 0
    assert arbiter.judge(0.5, 3) == "cleared" and arbiter.judge(0.75, 3) == "cleared" and arbiter.waited == 0
    assert arbiter.limit == pytest.approx(0.5)  # a third below the best
    assert arbiter.judge(0.62, None) == "cleared" and arbiter.sinking
    assert json.dumps(asdict(arbiter))


def test_with_few_problems_noise_decides_what_a_fall_is():
    arbiter = Arbiter(problems=8)  # start 0.2: 2·√(2·0.16/8) = 0.4; best 0.5: 2·√(2·0.25/8) = 0.5
    arbiter.begin(0.2)
    assert arbiter.judge(0.5, None) == "cleared" and arbiter.limit == pytest.approx(0.0)


def test_on_a_real_trainer_a_rollback_restores_the_policy_and_lengthens_the_run(tmp_path):
    """Accuracy is said to fall at once and everything trips: the guard rolls back at its first look, update 4."""
    guard = HackGuard(
        action="rollback",
        held_out=itertools.chain([0.9, 0.1], itertools.repeat(0.95)).__next__,
        every=1,
        rules={"incorrect_score": TripRule("up", -1.0)},
        watch={"reference": 3, "window": 1, "noise": -100.0},
        make_up=True,
    )
    policy = tiny_policy()
    seen, begun = {}, {name: weight.clone() for name, weight in policy.named_parameters()}

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            changed = any(not torch.equal(weight, begun[name]) for name, weight in policy.named_parameters())
            seen[state.global_step] = (changed, trainer.process_scale)

    trainer = ProcessGRPOTrainer(
        model=policy,
        args=tiny_config(tmp_path, max_steps=6, method="immediate", lr_scheduler_type="linear", learning_rate=0.06),
        train_dataset=tiny_dataset(32),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[guard, Look()],
    )
    guard.trainer = trainer
    trainer.train()
    assert seen[3] == (True, 1.0) and seen[4] == (False, 0.25) and seen[5][0]
    assert trainer.state.global_step == 6 + 4 and guard.journal.entries()[0]["step"] == 4
    logged = [row for row in trainer.state.log_history if "hack/process_scale" in row]
    assert [row["hack/process_scale"] for row in logged] == [1.0] * 4 + [0.25] * 6
    planned = [0.06, 0.05, 0.04, 0.03, 0.02, 0.01]
    assert [row["learning_rate"] for row in logged] == pytest.approx(planned[:4] + planned)


def test_the_accuracy_of_training_rollouts_is_a_share_of_verdicts():
    """Whatever a format reward adds: the arbiter's standard errors are those of a share."""
    seen = batch(1, steps=2, share_right=0.25)
    seen.rollouts = replace(
        seen.rollouts, outcome_rewards=seen.rollouts.outcome_rewards + 1, verdicts=seen.rollouts.outcome_rewards
    )
    _, _, outcome = update_measures([seen], texts=4, characters=1000)
    assert outcome == 0.25
