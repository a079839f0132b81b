"""``recipes/train_prm.py``: its configs parse, it trains from files, and what it saves is scored and resumed."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
import yaml

from rlhf_prm.prm import load_prm
from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.runs.arguments import parse
from rlhf_prm.runs.prm import (
    PRMRecipeArguments,
    load_prm_sources,
    quality,
    split_by_problem,
    stepwise_dataset,
)
from tests.prm_training.conftest import stepwise_rows

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("train_prm_*.yaml"))


@pytest.fixture
def recipe(monkeypatch):
    """Runs the recipe as from the command line; types are not checked, as transformers' parser breaks its own."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)
    loaded = runpy.run_path("recipes/train_prm.py", run_name="recipe")

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train_prm.py", *map(str, arguments)])
        loaded["main"]()

    run.arguments = loaded["ARGUMENTS"]
    return run


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses(path, recipe, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(path), "--use_cpu", "true", "--bf16", "false"])
    data, config, model = parse(recipe.arguments, default_config=path)
    given = yaml.safe_load(path.read_text())
    assert isinstance(config, PRMConfig) and config.loss == given["loss"]
    assert model.model_name_or_path == given.get("model_name_or_path")
    assert data.train_data == given.get("train_data", [])


def write_rows(path, rows):
    path.write_text("\n".join(json.dumps({**row, "source": "human"}) for row in rows))
    return path


def metrics_of(folder):
    return json.loads((folder / "eval_results.json").read_text())


def test_trains_from_files_evaluates_and_saves(recipe, language_model_folder, tmp_path, capsys):
    data = write_rows(tmp_path / "rows.jsonl", stepwise_rows(64))
    common = (
        "--config", CONFIGS[-1], "--train_data", data, "--model_name_or_path", language_model_folder,
        "--output_dir", tmp_path / "prm", "--max_steps", 4, "--per_device_train_batch_size", 8,
    )  # fmt: skip
    recipe(*common, "--eval_fraction", 0.34)
    assert "held-out first-error F1" in (said := capsys.readouterr().out) and "blind guess" in said
    if metrics_of(tmp_path / "prm")["eval_f1"] <= metrics_of(tmp_path / "prm")["eval_chance_f1"]:
        assert "WARNING: this PRM is no better than chance: first-error F1" in said
    metrics = metrics_of(tmp_path / "prm")
    assert {"eval_f1", "eval_auroc", "eval_ece", "eval_error_accuracy"} <= metrics.keys()
    scores = load_prm(tmp_path / "prm").score(["add 1"], [["so good 1", "so bad 2"]])
    assert len(scores[0]) == 2
    common = (*common, "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")
    common = (*common, "--patience", 0)
    recipe(*common, "--use_peft", "true", "--lora_target_modules", "all-linear", "--output_dir", tmp_path / "lora")
    assert len(load_prm(tmp_path / "lora").score(["add 1"], [["so good 1"]])[0]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train_data", "nowhere.jsonl", "--model_name_or_path", "x"), "no file nowhere.jsonl"),
        (("--loss", "bce"), "loss: got 'bce'"),
        (("--dtype", "bfloat16", "--learning_rate", "1e-5"), "learning_rate: got 1e-05 for bfloat16 weights"),
        (("--eval_fraction", "1"), "eval_fraction: got 1.0"),
        (("--eval_data", "x.jsonl"), "eval_data without train_data"),
        (("--world_settings", '{"sead": 1}'), "world_settings: .*sead"),
        (("--train_data", "a.jsonl"), "model_name_or_path: got nothing"),
    ],
)
def test_bad_input_is_one_line(arguments, message, recipe):
    with pytest.raises(SystemExit, match=message) as stop:
        recipe(*arguments)
    assert len(str(stop.value).splitlines()) == 1


def test_a_prm_no_better_than_chance_is_called_that_with_its_numbers_and_what_to_do():
    good = {"eval_f1": 0.6, "eval_chance_f1": 0.25, "eval_auroc": 0.8}
    assert quality(good, updates=300, learning_rate=1e-3).splitlines() == [
        "held-out first-error F1 0.600 (blind guess 0.250, constant 0), step AUROC 0.800 (chance 0.5)"
    ]
    bad = quality(good | {"eval_f1": 0.077}, updates=300, learning_rate=3e-3)
    assert "WARNING" in bad and "F1 0.077 where a blind guess has 0.250" in bad and "step AUROC 0.800 where" not in bad
    assert "300 updates at learning_rate 0.003" in bad and "labels" in bad
    outcome = quality(good | {"eval_chance_f1": 0.7}, updates=300, learning_rate=3e-3, target="outcome")
    assert "this outcome model is no better" in outcome and "F1 of whole solutions 0.600 where" in outcome


def test_the_toy_world_stops_by_its_own_labels_and_ends_with_exact_ones(monkeypatch):
    rows, exact = stepwise_rows(40), stepwise_rows(8, seed=1)
    monkeypatch.setattr("rlhf_prm.runs.prm._toy_world", lambda *_: (rows, exact, "policy"))
    sources = load_prm_sources(PRMRecipeArguments(), None, seed=0)
    assert sources.exact_dataset is exact and len(sources.train_dataset) + len(sources.eval_dataset) == 40
    assert not set(sources.eval_dataset["prompt"]) & set(sources.train_dataset["prompt"])


def test_held_out_problems_share_no_solution_with_training(tmp_path):
    rows = stepwise_dataset([str(write_rows(tmp_path / "rows.jsonl", stepwise_rows(60)))])
    train, held_out = split_by_problem(rows, 0.34)
    assert len(train) + len(held_out) == 60 and not set(train["prompt"]) & set(held_out["prompt"])
    assert len(set(held_out["prompt"])) == 1
    with pytest.raises(ValueError, match="leaves none to train on"):
        split_by_problem(rows.select([0]), 0.5)


def test_public_formats_are_read_as_rows(shared_data):
    rows = stepwise_dataset(
        [str(shared_data / "openr_samples_prm800k.jsonl"), str(shared_data / "processbench_gsm8k.jsonl")]
    )
    assert len(rows) > 400 and {"prompt", "completions", "labels", "soft_labels"} <= set(rows.column_names)
