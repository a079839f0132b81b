"""Outcome reward models: one label a solution, at its end; what is saved says what it is."""

import json
import random
from types import SimpleNamespace

import pytest
from datasets import Dataset

from rlhf_prm.evaluation.processbench import ProcessBenchItem, processbench
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.protocol import target_of
from rlhf_prm.prm_training.data import IGNORE, verdict_of
from rlhf_prm.prm_training.trainer import PRMTrainer
from rlhf_prm.progress import WatchedScorer
from rlhf_prm.runs.prm import PRMRecipeArguments, load_prm_sources
from rlhf_prm.step_data import write_rows
from tests.prm_training.test_trainer import config


def outcome_rows(size: int, seed: int = 0) -> Dataset:
    """The verdict is right where the last step says "good", whatever the steps before say."""
    rng, rows = random.Random(seed), []
    for _ in range(size):
        words = [rng.choice(["good", "bad"]) for _ in range(rng.randint(1, 4))]
        right = words[-1] == "good"
        rows.append(
            {
                "prompt": f"add {rng.randint(1, 3)}",
                "completions": [f"so {word} {rng.randint(1, 3)}" for word in words],
                "labels": [right] * len(words),
                "soft_labels": [float(right)] * len(words),
                "source": "outcome",
            }
        )
    return Dataset.from_list(rows)


def test_the_only_label_is_at_the_last_step(model, tokenizer, tmp_path):
    rows = outcome_rows(12)
    trainer = PRMTrainer(model, config(tmp_path, target="outcome"), rows, processing_class=tokenizer)
    for row, encoded in zip(rows, trainer.train_dataset, strict=True):
        labels, ends = encoded["step_labels"], encoded["step_ends"]
        assert labels == [IGNORE] * (len(row["completions"]) - 1) + [int(row["labels"][-1])]
        assert (
            len(ends) == len(labels) and tokenizer.convert_ids_to_tokens(encoded["input_ids"])[ends[-1]] == "<extra_0>"
        )


def test_the_verdict_at_every_step_is_learned_and_the_last_is_measured(model, tokenizer, tmp_path):
    rows = outcome_rows(12)
    args = config(tmp_path, target="outcome", verdict_at="every_step")
    trainer = PRMTrainer(model, args, rows, rows, processing_class=tokenizer)
    for row, encoded in zip(rows, trainer.train_dataset, strict=True):
        assert encoded["step_labels"] == [
            int(label) for label in row["labels"]
        ]  # no step is dropped behind a wrong one
    ended = [[label != IGNORE for label in row["step_labels"]] for row in trainer.eval_dataset]
    assert all(row[-1] and not any(row[:-1]) for row in ended)


def test_a_wrong_answer_keeps_all_its_steps(model, tokenizer, tmp_path):
    """A process reward model would be shown the first step only, since every label is wrong."""
    wrong = outcome_rows(40).filter(lambda row: not row["labels"][-1] and len(row["completions"]) > 2)
    for target, kept in (("outcome", len), ("steps", lambda steps: 1)):
        trainer = PRMTrainer(model, config(tmp_path, target=target), wrong, processing_class=tokenizer)
        lengths = [len(row["step_labels"]) for row in trainer.train_dataset]
        assert lengths == [kept(row["completions"]) for row in wrong]


def test_a_solution_too_long_to_show_its_answer_is_left_out(model, tokenizer, tmp_path):
    rows = outcome_rows(30)
    trainer = PRMTrainer(model, config(tmp_path, target="outcome", max_length=12), rows, processing_class=tokenizer)
    assert 0 < len(trainer.train_dataset) < len(rows)
    assert all(row["step_labels"][-1] != IGNORE for row in trainer.train_dataset)


def test_a_trained_model_is_known_as_an_outcome_model(language_model_folder, tmp_path):
    args = config(tmp_path / "orm", target="outcome", max_steps=120, per_device_train_batch_size=16)
    trainer = PRMTrainer(str(language_model_folder), args, outcome_rows(256), outcome_rows(64, seed=1))
    trainer.train()
    assert trainer.evaluate()["eval_auroc"] > 0.95
    trainer.save_model()
    assert json.loads((tmp_path / "orm" / "config.json").read_text())["prm_target"] == "outcome"
    loaded = load_prm(tmp_path / "orm")
    assert target_of(loaded) == target_of(WatchedScorer(loaded, "score")) == "outcome"
    steps = ["so bad 1", "so good 2", "so bad 3"]
    (scores,) = loaded.score(["add 1"], [steps])
    # each prefix as a solution of its own, as the paper scores ProcessBench with an outcome model: the same in one pass
    prefixes = loaded.score(["add 1"] * 3, [steps[: k + 1] for k in range(3)])
    assert scores == pytest.approx([row[-1] for row in prefixes], abs=1e-6)
    found = processbench(
        loaded, {"some": [ProcessBenchItem("add 1", steps[1:], 1), ProcessBenchItem("add 1", steps[:2], 0)]}
    )
    assert found["some"]["error_accuracy"] == 1.0  # it sees each prefix end in a bad step

    again = PRMTrainer(str(tmp_path / "orm"), config(tmp_path / "prm"), outcome_rows(8))  # goes on as a process model
    again.save_model()
    assert target_of(load_prm(tmp_path / "prm")) == "steps"


def test_a_process_model_has_no_note(language_model_folder, tmp_path):
    trainer = PRMTrainer(str(language_model_folder), config(tmp_path / "prm"), outcome_rows(8))
    trainer.save_model()
    assert "prm_target" not in json.loads((tmp_path / "prm" / "config.json").read_text())
    assert target_of(load_prm(tmp_path / "prm")) == "steps"
    path = tmp_path / "prm" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prm_target": "answers"}))
    with pytest.raises(
        ValueError, match="prm_target of this reward model is 'answers', expected one of steps, outcome"
    ):
        load_prm(tmp_path / "prm")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "answer"}, "target: got 'answer', expected one of steps, outcome"),
        ({"verdict_at": "every_step"}, "verdict_at every_step: expected target outcome"),
        ({"target": "outcome", "verdict_at": "all"}, "verdict_at: got 'all', expected one of last, every_step"),
        ({"target": "outcome", "loss": "mse"}, "target outcome with loss mse: expected loss ce"),
        ({"target": "outcome", "loss": "pqm"}, "target outcome with loss pqm: expected loss ce"),
        ({"target": "outcome", "steps_after_error": "keep"}, "target outcome with steps_after_error keep"),
    ],
)
def test_refused_settings(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_step_labels_are_no_verdict():
    row = {"prompt": "p", "completions": ["a", "b"], "labels": [False, False], "source": "monte_carlo"}
    with pytest.raises(ValueError, match="expected rows of the source 'outcome', which"):
        verdict_of(row)
    assert verdict_of(row | {"outcome": True}) is True
    assert verdict_of(row | {"source": "outcome"}) is False


def test_the_embedded_toy_world_then_has_verdicts(tmp_path, monkeypatch):
    """No exact step labels at the end: the held-out verdicts say all there is."""
    seen = []

    def build(settings, root, *, with_prm):
        seen.append(settings.label_source)
        write_rows(tmp_path / "rows.jsonl", outcome_rows(20))
        return SimpleNamespace(stages={"labels": SimpleNamespace(path=tmp_path)}, policy_path=tmp_path / "policy")

    monkeypatch.setattr("rlhf_prm.toyworld.build_world", build)
    sources = load_prm_sources(PRMRecipeArguments(), None, seed=0, target="outcome")
    assert seen == ["outcome"] and sources.exact_dataset is None
    assert set(sources.train_dataset["source"]) == {"outcome"} and len(sources.eval_dataset) >= 1
