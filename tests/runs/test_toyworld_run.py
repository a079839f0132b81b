"""The recipe's embedded default, end to end on a small world: dense beside outcome-only, cached stages, a whole run."""

import json
import runpy
import sys
from functools import partial
from pathlib import Path

import jaxtyping
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.toyworld.prm_check import check_prm

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "train_problems": 32,
    "eval_problems": 32,
    "sft_updates": 4,
    "sft_batch": 8,
    "labelled_solutions": 24,
    "mc_completions": 2,
    "prm_updates": 3,
    "prm_batch": 8,
    "label_source": "judge",
}


@pytest.fixture(scope="module")
def stage_cache(tmp_path_factory) -> Path:
    """The stages of the small world, built by the first test that needs them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def recipe(monkeypatch, stage_cache):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the argument parser fills transformers' fields
    monkeypatch.setattr("rlhf_prm.toyworld.prm_check.check_prm", partial(check_prm, problems=16))

    def run(folder: Path, *arguments: str) -> dict:
        settings = ["--world_settings", json.dumps(SMALL), "--max_steps", "2", "--eval_every", "2"]
        paths = ["--stage_cache", str(stage_cache), "--output_dir", str(folder / "run")]
        monkeypatch.setattr(sys, "argv", ["grpo_prm.py", *settings, *paths, *arguments])
        runpy.run_path("recipes/grpo_prm.py", run_name="recipe")["main"]()
        return json.loads((folder / "run" / "summary.json").read_text())

    return run


def test_toy_world_run_and_its_baseline(recipe, tmp_path, capsys, request):
    small = ("--per_device_train_batch_size", "16")
    summary = recipe(tmp_path, *small)
    assert (
        summary["method"] == "trusted"
        and summary["ceiling"]["method"] == "trusted"
        and summary["baseline"]["method"] == "outcome"
        and summary["seed"] == 0
    )
    for run in (summary, summary["baseline"], summary["ceiling"]):
        for key in ("accuracy", "process_accuracy"):
            assert all(0 <= run[key][when] <= 1 for when in ("before", "after"))
    assert 0 <= summary["prm"]["first_error"]["f1"] <= 1 and "min@8" in summary["prm"]["best_of_n"]
    assert len(summary["prm"]["audit"]) >= 10 and (tmp_path / "run" / "prm_audit.html").exists()
    assert summary["accuracy"]["before"] == summary["baseline"]["accuracy"]["before"]
    assert {"policy", "prm", "train trusted", "train outcome (baseline)", "train trusted (ceiling)", "evaluate"} <= set(
        summary["seconds"]
    )
    run = tmp_path / "run"
    for folder in (run, run / "baseline", run / "ceiling"):
        logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [log["step"] for log in logs if "loss" in log] == [1, 2]
        assert "eval/accuracy" in logs[1] and "eval/process_accuracy" in logs[1]
        assert len(list((folder / "completions").glob("*.parquet"))) >= 2
    AutoModelForCausalLM.from_pretrained(run / "policy")
    AutoTokenizer.from_pretrained(run / "policy")
    assert (run / "report.html").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "PRM: first-error F1" in printed and "audit:" in printed
    assert "accuracy" in printed and "outcome" in printed and "time:" in printed

    request.getfixturevalue("empty_pages")
    again = recipe(tmp_path, *small, "--seed", "0")
    timed = ("seconds", "versions", "settings")
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in summary.items() if k not in timed}


@pytest.mark.usefixtures("empty_pages")
def test_gold_fraction_reaches_the_toy_world(recipe, tmp_path):
    alone = ("--baseline", "", "--ceiling", "false", "--check_prm", "false", "--max_steps", "1", "--eval_every", "0")
    recipe(tmp_path, "--gold_fraction", "0", *alone)
    log = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert log["verifier/unlabelled_frac"] == 1.0


def test_unknown_world_setting_is_named(recipe, tmp_path):
    with pytest.raises(SystemExit, match=r"world_settings: .*fillers"):
        recipe(tmp_path, "--world_settings", '{"fillers": true}')


@pytest.mark.usefixtures("empty_pages")
def test_the_oracle_takes_the_place_of_the_prm(recipe, tmp_path):
    world = json.dumps(SMALL | {"sft_updates": 60, "sft_batch": 32})
    cache = tmp_path / "cache"  # of its own: no PRM may be built there
    flags = ("--world_settings", world, "--max_steps", "4", "--baseline", "none", "--stage_cache", str(cache))
    flags += ("--ceiling", "false", "--per_device_train_batch_size", "32")
    summary = recipe(tmp_path, *flags, "--prm", "oracle")
    assert summary["prm"]["first_error"]["error_accuracy"] == 1.0  # it scores what the labels say
    assert "prm" not in summary["seconds"] and not list(cache.glob("prm-*"))  # none was built
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    measured = [log["prm/auroc_within"] for log in logged if "prm/auroc_within" in log]
    assert len(measured) == 1  # the start-of-run check is in the run loop
    # Whether it warns depends on the policy: this one ends right by luck, which the oracle rightly does not rank high.

    blind = recipe(tmp_path, *flags, "--max_steps", "1", "--prm", "oracle", "--prm_kwargs", '{"random_flips": 0.5}')
    assert blind["prm"]["first_error"]["error_accuracy"] < 0.8


@pytest.mark.usefixtures("empty_pages")
def test_the_toy_judge_takes_the_place_of_the_prm(recipe, tmp_path):
    """No PRM is built; the judge is asked within its budget, and what it says is kept as rows to train on."""
    from rlhf_prm.step_data import read_rows

    world = json.dumps(SMALL | {"sft_updates": 60, "sft_batch": 32})
    keywords = json.dumps({"flips": 0.0, "votes": 2, "budget_calls": 12, "behind_error": "wrong"})
    flags = ("--world_settings", world, "--max_steps", "2", "--baseline", "none", "--method", "fapo")
    flags += ("--ceiling", "false", "--per_device_train_batch_size", "16")
    summary = recipe(tmp_path, *flags, "--prm", "judge:toy", "--prm_kwargs", keywords)
    assert not list((tmp_path / "cache").glob("prm-*"))
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    calls = [row["prm/judge_calls"] for row in logged if "prm/judge_calls" in row]
    assert calls and max(calls) == 12 and max(row.get("prm/judge_over_budget", 0) for row in logged) > 0
    assert len(list(read_rows(tmp_path / "run" / "judged.jsonl"))) > 0
    assert summary["prm"]["first_error"]["error_accuracy"] == 1.0  # behind the run it has no update's budget


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prm_kwargs", '{"flips": 2}'), "prm_kwargs: flips: got 2, expected a share between 0 and 1"),
        (("--prm_kwargs", '{"random_flips": 0.1}'), "prm_kwargs: a judge has no keyword 'random_flips'"),
        (("--prm_kwargs", '{"endpoint": "http://h/v1"}'), "prm_kwargs: endpoint: got a value beside a generator"),
        (("--prm_placement", "server"), "prm_placement: got 'server' with prm 'judge:toy', which writes its verdicts"),
    ],
)
def test_what_the_toy_judge_does_not_take_is_said_before_anything_is_built(
    recipe, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("rlhf_prm.toyworld.build_world", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(SystemExit, match=message):
        recipe(tmp_path, "--prm", "judge:toy", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--prm_kwargs", '{"flips": 0.1}'),
            r"prm_kwargs: .*no keyword 'flips'; it has random_flips, systematic_flips",
        ),
        (("--prm_kwargs", '{"random_flips": 2}'), "prm_kwargs: random_flips: got 2, expected a share between 0 and 1"),
        (("--prm_kwargs", '{"random_flips": "a"}'), "prm_kwargs: random_flips: got 'a', expected a share"),
        (("--prm_family", "qwen"), "prm_family: got 'qwen' with prm 'oracle', which is no model"),
    ],
)
def test_what_the_oracle_does_not_take_is_said_before_anything_is_built(
    recipe, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("rlhf_prm.toyworld.build_world", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(SystemExit, match=message):
        recipe(tmp_path, "--prm", "oracle", *arguments)


@pytest.mark.parametrize("prm", ["vine", "oracle"])
def test_no_prm_is_built_where_none_is_asked_for(recipe, tmp_path, monkeypatch, prm):
    class Asked(Exception):
        """What the recipe wants built."""

    def build(settings, root, **parts):
        raise Asked(parts)

    monkeypatch.setattr("rlhf_prm.toyworld.build_world", build)
    with pytest.raises(Asked) as asked:
        recipe(tmp_path, "--prm", prm)
    assert asked.value.args == ({"with_prm": False, "with_labels": False},)
