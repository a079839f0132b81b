"""The PRM of a run learns along: what is logged and left, resuming, comparisons from the first PRM, own judges."""

import json
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest
import torch

from rlhf_prm.prm import load_prm
from rlhf_prm.runs.arguments import RecipeArguments
from rlhf_prm.runs.refresh import check_refresh
from rlhf_prm.runs.refresh_labels import _estimates, own_models, split_settings
from rlhf_prm.step_data import FreshRollout
from rlhf_prm.steps import StepSplitter
from tests.tiny import DigitVerifier, tiny_config, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("empty_pages")
ROOT = Path(__file__).resolve().parents[2]
WORLD = {
    "train_problems": 64, "eval_problems": 16, "sft_updates": 60, "sft_batch": 32, "labelled_solutions": 48,
    "mc_completions": 2, "prm_updates": 4, "prm_batch": 8, "label_source": "judge",
}  # fmt: skip
REFRESH = {"every": 1, "rows": 64, "updates": 3, "batch_size": 16, "held_out": 0.5}


@pytest.fixture
def recipe(monkeypatch, tmp_path_factory):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the argument parser fills transformers' fields
    cache = tmp_path_factory.getbasetemp() / "refresh-cache"

    def run(folder: Path, refresh: dict, *flags: str) -> list[dict]:
        settings = ["--world_settings", json.dumps(WORLD), "--method", "immediate", "--max_steps", "4"]
        paths = ["--stage_cache", str(cache), "--output_dir", str(folder)]
        more = [
            "--prm_refresh",
            json.dumps(refresh),
            "--baseline",
            "none",
            "--ceiling",
            "false",
            "--check_prm",
            "false",
        ]
        more += ["--eval_every", "0", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "2"]
        more += ["--per_device_train_batch_size", "32"]
        monkeypatch.setattr(sys, "argv", ["grpo_prm.py", *settings, *paths, *more, *flags])
        runpy.run_path("recipes/grpo_prm.py", run_name="recipe")["main"]()
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    return run


def refreshes(logs: list[dict]) -> dict[int, dict]:
    kept = {
        log["step"]: {k: v for k, v in log.items() if k.startswith("prm_refresh/") and "seconds" not in k}
        for log in logs
        if "prm_refresh/fresh" in log
    }
    return kept


def test_a_run_whose_prm_learns_along_and_the_same_run_resumed(recipe, tmp_path):
    """Refreshed after updates 1, 2 and 3; started again from checkpoint 2 it comes to the same numbers and weights."""
    folder, whole = tmp_path / "run", ("--per_device_train_batch_size", "64")
    logs = recipe(folder, {**REFRESH, "labels": "judge", "votes": 3}, *whole)
    told = refreshes(logs)
    assert sorted(told) == [1, 2, 3]  # after the last update nobody needs it
    for row in told.values():
        assert row["prm_refresh/rows"] > row["prm_refresh/fresh"] > 0 and row["prm_refresh/held_out"] >= 8
        assert 0 <= row["prm_refresh/f1_before"] <= 1 and 0 <= row["prm_refresh/auroc_after"] <= 1
    swapped = sum(row["prm_refresh/swapped"] for row in told.values())
    assert swapped >= 1 and told[3]["prm_refresh/version"] == swapped
    kept = folder / "prm_refresh"
    newest = torch.load(kept / f"version_{int(swapped)}.pt")
    load_prm(kept / "prm").score(["Start"], [["a"]])
    assert len((kept / "refreshes.jsonl").read_text().splitlines()) == 3

    shutil.rmtree(folder / "policy")
    resume = ("--resume_from_checkpoint", str(folder / "checkpoint-2"))
    again = recipe(folder, {**REFRESH, "labels": "judge", "votes": 3}, *whole, *resume)
    assert refreshes(again) == told
    timed = ("seconds", "step_time", "train_", "_per_second")
    numbers = [
        [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in rows] for rows in (logs, again)
    ]
    assert numbers[0] == numbers[1]
    resumed = torch.load(kept / f"version_{int(swapped)}.pt")
    assert all(torch.equal(newest[name], resumed[name]) for name in newest)


def test_what_a_run_is_compared_with_starts_from_the_first_prm(recipe, tmp_path, monkeypatch):
    """The baseline's first update logs the scores of the PRM as it was; afterwards the newest one is back."""
    logs = recipe(tmp_path / "run", {**REFRESH, "labels": "outcome", "learning_rate": 1e-2}, "--baseline", "immediate")
    baseline = [json.loads(x) for x in (tmp_path / "run" / "baseline" / "metrics.jsonl").read_text().splitlines()]
    name = "process/step_score/mean"
    assert baseline[0][name] == logs[0][name]
    assert not any("prm_refresh/fresh" in row for row in baseline)


def test_live_monte_carlo_labels_leave_the_training_as_it_is(recipe, tmp_path):
    """Completions of the policy in training: learning rate 0 for the PRM, so the run is that of a frozen PRM."""
    settings = {**REFRESH, "every": 2, "updates": 1, "learning_rate": 1e-30}
    labelled = recipe(tmp_path / "mc", {**settings, "labels": "mc", "num_completions": 2})
    plain = recipe(tmp_path / "outcome", {**settings, "labels": "outcome"})
    assert refreshes(labelled)[2]["prm_refresh/fresh"] > 0
    losses = [[(row["loss"], row["reward"]) for row in rows if "loss" in row] for rows in (labelled, plain)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("labels", ["judge", "mc"])
def test_ones_own_models_label_ones_own_data(monkeypatch, tmp_path, labels):
    """A judge by dotted path; completions of the policy itself through transformers' generate."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"prompt": f"What is {i}?", "solution": str(i % 3)}) + "\n" for i in range(32))
    (tmp_path / "problems.jsonl").write_text(rows)
    refresh = {"every": 1, "rows": 64, "updates": 1, "held_out": 0.5, "labels": labels}
    refresh |= {"judge": {"model": "j", "backend": "tests.runs.prm_refresh_fakes.judge"}} if labels == "judge" else {}
    refresh |= {"num_completions": 2} if labels == "mc" else {}
    flags = {
        "dataset": tmp_path / "problems.jsonl", "output_dir": tmp_path / "run", "stage_cache": tmp_path / "cache",
        "model_name_or_path": "tiny-random", "prm": "tiny-random", "method": "immediate", "max_steps": 2,
        "per_device_train_batch_size": 32, "num_generations": 2, "max_completion_length": 8, "save_strategy": "no",
        "use_cpu": "true", "bf16": "false", "gradient_checkpointing": "false", "logging_steps": 1,
        "prm_refresh": json.dumps(refresh),
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["grpo_prm.py", *(f"--{name}={value}" for name, value in flags.items())])
    runpy.run_path(str(ROOT / "recipes" / "grpo_prm.py"), run_name="recipe")["main"]()
    logs = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in logs if "prm_refresh/fresh" in row)
    assert first["step"] == 1 and first["prm_refresh/fresh"] > 0
    (labelled,) = (tmp_path / "run" / "prm_refresh").glob("rows_000001.jsonl")
    row = json.loads(labelled.read_text().splitlines()[0])
    assert row["source"] == {"judge": "judge", "mc": "monte_carlo"}[labels] and row["prompt"].startswith("What is")


@pytest.mark.parametrize(
    ("refresh", "recipe_settings", "told"),
    [
        ({"labels": "judge"}, {"dataset": "d", "prm": "p"}, "got no judge model"),
        ({"labels": "gold"}, {"dataset": "d", "prm": "p"}, "only the toy world has"),
        ({"lables": "judge"}, {"dataset": "d", "prm": "p"}, "the key 'lables', expected some of every, rows"),
        ({"every": "often"}, {}, "(?s)prm_refresh.*every"),
        ({"vote": 3}, {}, "the key 'vote', expected some of every, rows"),
        ({"labels": "judge", "judge": {"name": "x"}}, {"dataset": "d", "prm": "p"}, "got no judge model"),
        ({"labels": "mc", "completer": {"name": "x"}}, {"dataset": "d", "prm": "p"}, "prm_refresh completer: "),
        ({"labels": "mc"}, {"dataset": "d", "prm": "p", "prm_placement": "server"}, "refreshed by hand"),
        ({"labels": "mc"}, {"dataset": "d", "prm": "p", "prm_placement": "zero3"}, "expected replicate or offload"),
        ({"labels": "mc"}, {"prm": "oracle"}, "got prm 'oracle', expected a PRM with weights"),
        ({"labels": "mc"}, {"dataset": "d"}, "got prm None"),
        ({"labels": "mc"}, {"prm": "implicit"}, "got prm 'implicit', expected a PRM with weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_is_loaded(tmp_path, refresh, recipe_settings, told):
    recipe = RecipeArguments(prm_refresh=refresh, **recipe_settings)
    with pytest.raises(ValueError, match=told):
        check_refresh(recipe, tiny_config(tmp_path))


@pytest.mark.parametrize(
    ("labels", "settings", "told"),
    [
        ("outcome", {"think_tags": ["<a>", "</a>"], "prm_reads": "answer"}, "prm_reads: got 'answer' beside prm_refre"),
        ("mc", {"step_pattern": ";"}, "step_pattern: got ';' beside prm_refresh labels 'mc', expected"),
    ],
)
def test_readings_and_steps_that_labels_do_not_follow_are_refused(tmp_path, labels, settings, told):
    recipe = RecipeArguments(prm_refresh={"labels": labels}, dataset="d", prm="p")
    with pytest.raises(ValueError, match=told):
        check_refresh(recipe, tiny_config(tmp_path, **settings))


def test_completions_continue_the_prompt_that_the_policy_was_given():
    """By the trainer's own template and its keywords, not by those that came with the tokenizer."""
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if quiet %}<quiet>{% endif %}"
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "another one"
    trainer = SimpleNamespace(
        processing_class=tokenizer, _tokenizer=tokenizer, chat_template=template, chat_template_kwargs={"quiet": True}
    )
    trainer.scoring = SimpleNamespace(splitter=StepSplitter(), verifier=DigitVerifier())
    trainer.accelerator = SimpleNamespace(num_processes=1)
    labeller = _estimates(None, {}, trainer)
    asked = FreshRollout("3?", ("3",), "3", 1.0, [{"role": "user", "content": "What is 3?"}])
    assert labeller.template(asked) == "What is 3?<quiet>"


def test_a_run_on_outcomes_alone_has_nothing_to_refresh(tmp_path):
    with pytest.raises(ValueError, match="learns from the outcome alone"):
        check_refresh(RecipeArguments(prm_refresh={"every": 5}), tiny_config(tmp_path, method="outcome"))


def test_model_and_endpoint_are_short_for_the_labels_model():
    short = {"model": "m", "endpoint": "http://h:8000/v1"}
    judge, completer = own_models("judge", short)
    assert (judge.model, judge.endpoints, judge.backend, completer) == ("m", ["http://h:8000/v1"], "endpoint", None)
    judge, completer = own_models("mc", short)
    assert (judge, completer.model) == (None, "m")
    settings, rest = split_settings({"every": 3, **short})
    assert settings.every == 3 and rest == short
