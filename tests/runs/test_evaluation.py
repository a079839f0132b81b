"""Held-out evaluation in the middle of training: what it measures, and that training does not notice it."""

import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import TrainerCallback

from reward.verifier import Verdict
from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.undisturbed import training_undisturbed
from rlhf_prm.runs.evaluation import EvaluateOnTheWay, held_out_accuracy, samples_of_accuracy
from rlhf_prm.runs.folder import MetricsFile
from rlhf_prm.runs.sources import Sources
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

TIMED = ("seconds", "step_time", "train_", "_per_second")


class CountEvaluations(TrainerCallback):
    """What early stopping would act on."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_evaluate(self, args, state, control, **_):
        self.seen.append(state.global_step)


def held_out(dataset) -> Sources:
    """Problems of one's own, which the trainer's verifier judges."""
    return Sources("", {}, tiny_tokenizer(), None, DigitVerifier(), dataset, eval_dataset=dataset)


def train(folder, *callbacks, evaluate: bool = True, verifier=None, **settings):
    """Four updates; a held-out evaluation after each second one, by us and by the guard, where ``evaluate``."""
    sources = held_out(tiny_dataset(12))
    on_the_way = EvaluateOnTheWay(sources, 2, 8)
    guard = HackGuard(action="warn", every=1, quiet_every=1)
    defaults = dict(max_steps=4, logging_steps=2, method="immediate", num_generations_eval=1, log_completions=True)
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, num_completions_to_print=0, per_device_eval_batch_size=8, **(defaults | settings)),
        train_dataset=tiny_dataset(16),
        eval_dataset=tiny_dataset(12),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=verifier or DigitVerifier(),
        callbacks=[MetricsFile(folder), *([on_the_way, guard] if evaluate else []), *callbacks],
    )
    on_the_way.trainer = guard.trainer = trainer
    guard.held_out = lambda: trainer.evaluate()["eval_rewards/verifier/mean"]  # as a user's own would
    trainer.train()
    return trainer


def rows_of(folder) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMED) and "hack/" not in k} for row in rows]


def test_an_evaluated_run_is_to_the_last_bit_the_run_that_was_not(tmp_path):
    settings = dict(save_strategy="steps", save_steps=4)
    with_it = train(tmp_path / "with", **settings)
    without = train(tmp_path / "without", evaluate=False, **settings)
    for name, weight in without.model.state_dict().items():
        assert torch.equal(weight, with_it.model.state_dict()[name])
    rows = rows_of(tmp_path / "with")
    assert [row for row in rows if "eval/accuracy" not in row] == rows_of(tmp_path / "without")
    assert not any(name.startswith("eval_") for row in rows for name in row)
    for update in (2, 4):
        tables = [pd.read_parquet(tmp_path / run / f"completions/completions_{update:05d}.parquet") for run in
                  ("with", "without")]  # fmt: skip
        pd.testing.assert_frame_equal(*tables)
    drawn = [torch.load(tmp_path / run / "checkpoint-4/rng_state.pth", weights_only=False) for run in
             ("with", "without")]  # fmt: skip
    assert torch.equal(drawn[0]["cpu"], drawn[1]["cpu"])  # what a resumed run would go on with
    assert with_it.last_rollouts.mode == "train" and with_it.model.training


def test_training_logs_and_accuracies_are_all_there(tmp_path):
    train(tmp_path)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [2, 4]
    assert all("process/auroc" in row and "reward" in row for row in rows if "loss" in row)
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [2, 4]


def test_accuracies_between_two_logs_are_not_averaged(tmp_path, monkeypatch):
    told = iter([0.25, 0.75])
    monkeypatch.setattr(
        "rlhf_prm.runs.evaluation.held_out_accuracy",
        lambda *_: {"accuracy": next(told), "process_accuracy": None},
    )
    train(tmp_path, logging_steps=4)
    assert [(row["step"], row["eval/accuracy"]) for row in rows_of(tmp_path) if "eval/accuracy" in row] == [
        (2, 0.25),
        (4, 0.75),
    ]


def test_an_update_is_evaluated_once_for_the_log_and_for_the_guard(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("rlhf_prm.runs.evaluation.held_out_accuracy", lambda *_: calls.append(1) or {"accuracy": 0.5})
    trainer = _untrained(tmp_path, DigitVerifier())
    on_the_way = EvaluateOnTheWay(held_out(tiny_dataset(2)), 1, 2)
    on_the_way.trainer = trainer
    for update, seen in ((0, 1), (1, 2), (2, 3)):
        trainer.state.global_step = update
        on_the_way.on_step_end(None, trainer.state, trainer.control)
        assert on_the_way.measured() == {"accuracy": 0.5} and len(calls) == seen


def test_the_trainers_own_evaluation_and_checkpoint_still_happen(tmp_path):
    counted = CountEvaluations()
    train(tmp_path, counted, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)
    assert counted.seen == [2, 4]  # ours at 2 and 4 do not count for early stopping
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}


class OnlyProblems(DigitVerifier):
    """Right for the problems whose gold answer is below 2, unable to judge the others of ``unknown``."""

    def __init__(self, unknown: str = "") -> None:
        self.unknown, self.seen = unknown, []

    def verify(self, completions, solutions):
        self.seen += solutions
        return [
            Verdict(None, "timeout", None, 0.0)
            if gold in self.unknown
            else Verdict(float(int(gold) < 2), "correct" if int(gold) < 2 else "incorrect", None, 0.0)
            for gold in solutions
        ]


@pytest.mark.parametrize(("samples", "batch"), [(1, 4), (1, 5), (2, 4), (4, 2)])
def test_every_problem_counts_once_whatever_the_batch_size(tmp_path, samples, batch):
    # golds 0 … 4: two of five are right; means of unequal batches (4 + 1) would say 0.25
    verifier = OnlyProblems()
    trainer = _untrained(
        tmp_path, verifier, num_generations_eval=samples, per_device_eval_batch_size=max(batch, samples)
    )
    verifier.seen.clear()
    sources = held_out(tiny_dataset(5))
    assert held_out_accuracy(trainer, sources) == {"accuracy": pytest.approx(0.4), "process_accuracy": None}
    assert held_out_accuracy(trainer, sources, limit=3)["accuracy"] == pytest.approx(2 / 3)
    assert [samples_of_accuracy(trainer, sources, limit) for limit in (3, 256)] == [3 * samples, 5 * samples]


def test_what_the_verifier_cannot_judge_is_left_out(tmp_path):
    trainer = _untrained(tmp_path, OnlyProblems(unknown="0"))
    sources = held_out(tiny_dataset(5, solution=["0", "1", "2", None, None]))
    assert held_out_accuracy(trainer, sources)["accuracy"] == pytest.approx(0.5)
    sources = held_out(tiny_dataset(2, solution=[None, None]))
    assert held_out_accuracy(trainer, sources)["accuracy"] is None


def test_all_is_put_back_after_an_error_too(tmp_path):
    trainer = _untrained(tmp_path, DigitVerifier())
    trainer._metrics["eval"]["kept"].append(1.0)
    trainer._logs["extra"]["steps"].append(["kept"])
    callbacks = trainer.callback_handler.callbacks
    torch.manual_seed(1), random.seed(2), np.random.seed(3)
    trainer.control.should_log = True
    with pytest.raises(RuntimeError, match="in the middle"), training_undisturbed(trainer):
        trainer.evaluate()
        torch.rand(1), random.random(), np.random.rand()
        trainer._logs["extra"]["steps"].append(["lost"])
        raise RuntimeError("in the middle")
    assert trainer.control.should_log and trainer.callback_handler.callbacks is callbacks
    assert dict(trainer._metrics["eval"]) == {"kept": [1.0]} and list(trainer._logs["extra"]["steps"]) == [["kept"]]
    assert trainer.log_completions and trainer.state.log_history == []
    drawn = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(1), random.seed(2), np.random.seed(3)
    assert drawn == (torch.rand(1).item(), random.random(), np.random.rand())


def _untrained(folder, verifier, **settings):
    defaults = dict(num_generations_eval=1, per_device_eval_batch_size=4, log_completions=True)
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, num_completions_to_print=0, **(defaults | settings)),
        train_dataset=tiny_dataset(16),
        eval_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=verifier,
    )
