"""When training ends, which weights are kept, and that a run can be repeated."""

import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from rlhf_prm.prm_training.stopping import PatienceOnceLearned, SecondsBudget, stopping_metric
from rlhf_prm.prm_training.trainer import PRMTrainer
from tests.prm_training.conftest import stepwise_rows
from tests.prm_training.test_trainer import config, weights

KEEPS_BEST = {
    "eval_strategy": "steps", "eval_steps": 2.0, "save_strategy": "best", "load_best_model_at_end": True,
    "metric_for_best_model": "f1", "save_only_model": True, "save_total_limit": 1,
}  # fmt: skip


def after(values: list[float], patience: int, chance: float = 0.2, metric: str = "f1") -> int | None:
    """At which of the evaluations (from 1) training stops."""
    callback, state, control = PatienceOnceLearned(patience), TrainerState(), TrainerControl()
    args = SimpleNamespace(metric_for_best_model=metric, greater_is_better=True)
    for number, value in enumerate(values, 1):
        metrics = {f"eval_{metric}": value, f"eval_{metric.removesuffix('f1')}chance_f1": chance}
        callback.on_evaluate(args, state, control, metrics)
        callback.on_evaluate(args, state, control, {"eval_other_f1": 0.9})  # another dataset's
        state.best_metric = value if state.best_metric is None else max(value, state.best_metric)
        if control.should_training_stop:
            return number
    return None


def test_patience_counts_from_when_chance_is_passed():
    assert after([0.0] * 20, patience=2) is None
    assert after([0.0, 0.2, 0.2, 0.2, 0.2], patience=2) is None  # as good as chance is not above it
    assert after([0.0, 0.0, 0.0, 0.3, 0.3, 0.1], patience=2) == 6
    assert after([0.0, 0.3, 0.2, 0.4, 0.3, 0.5, 0.4, 0.4], patience=2) == 8
    assert after([0.3, 0.2, 0.2], patience=2, metric="held_f1") == 3
    assert after([0.9, 0.8, 0.8], patience=2, metric="auroc") == 3


def test_auroc_has_its_own_chance_and_decides_where_right_solutions_are_few():
    assert after([0.5, 0.4, 0.45, 0.5, 0.5], patience=2, metric="auroc") is None
    assert after([0.4, 0.6, 0.5, 0.6], patience=2, metric="auroc") == 4
    right, wrong = {"labels": [True, True]}, {"labels": [True, False]}
    assert stopping_metric([right] * 30 + [wrong] * 30) == "f1"
    assert stopping_metric([right] * 29 + [wrong] * 300) == stopping_metric([right] * 300 + [wrong] * 29) == "auroc"


def test_the_best_weights_are_kept_and_training_ends_before_max_steps(model, tokenizer, tmp_path):
    args = config(tmp_path, max_steps=200, patience=2, per_device_train_batch_size=16, **KEEPS_BEST)
    trainer = PRMTrainer(model, args, stepwise_rows(256), stepwise_rows(64, seed=1), tokenizer)
    trainer.train()
    f1 = {log["step"]: log["eval_f1"] for log in trainer.state.log_history if "eval_f1" in log}
    best = max(f1, key=lambda update: (f1[update], -update))
    assert trainer.state.global_step == best + 2 * 2 < 200
    assert trainer.evaluate()["eval_f1"] == f1[best] > 0.9


def test_the_seconds_are_kept_and_the_end_is_measured(model, tokenizer, tmp_path):
    args = config(tmp_path, max_steps=10_000, seconds_budget=1.0, **KEEPS_BEST | {"eval_steps": 5000.0})
    trainer = PRMTrainer(model, args, stepwise_rows(64), stepwise_rows(16, seed=1), tokenizer)
    began = time.monotonic()
    trainer.train()
    assert 1.0 <= time.monotonic() - began < 30 and trainer.state.global_step < 5000
    assert [log["step"] for log in trainer.state.log_history if "eval_f1" in log] == [trainer.state.global_step]


def test_seconds_begin_with_the_training():
    callback = SecondsBudget(0.2)
    time.sleep(0.25)
    callback.on_train_begin(None, None, None)
    control, args = TrainerControl(), SimpleNamespace(world_size=1, eval_strategy="no")
    callback.on_step_end(args, None, control)
    assert not control.should_training_stop
    time.sleep(0.25)
    callback.on_step_end(args, None, control)
    assert control.should_training_stop and not control.should_evaluate


def test_the_same_seed_trains_the_same_prm_and_another_seed_another(language_model_folder, tmp_path):
    """The new head too, and the order of the rows, whatever state the random numbers were in before."""
    ends = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(noise)
        trainer = PRMTrainer(str(language_model_folder), config(tmp_path, seed=seed, max_steps=5), stepwise_rows(64))
        head = trainer.model.score[0].weight.detach().clone()
        trainer.train()
        order = list(trainer._get_train_sampler())
        ends.append((head, order, weights(trainer.model)))
    (head, order, first), (same_head, same_order, second), (other_head, other_order, _) = ends
    assert torch.equal(head, same_head) and not torch.equal(head, other_head)
    assert order == same_order != other_order
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": -1}, "patience: got -1"),
        ({"patience": 2}, "patience 2 needs evaluations and the best weights"),
        ({"seconds_budget": 0.0}, "seconds_budget: got 0.0"),
    ],
)
def test_config_says_what_is_wrong(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_grouping_by_length_is_warned_of_where_length_tells_the_label(tmp_path, recwarn):
    config(tmp_path, train_sampling_strategy="group_by_length", steps_after_error="keep")
    assert not [one for one in recwarn if "group_by_length" in str(one.message)]
    with pytest.warns(UserWarning, match="rows of similar length have similar labels"):
        config(tmp_path, train_sampling_strategy="group_by_length")
