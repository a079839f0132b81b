"""``world: word_problems`` in the recipe that the ablation lab runs: outcome-only, the learned PRM, the ceiling."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("--max_steps", "2", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2"),
    *("--num_generations", "4", "--max_completion_length", "32", "--eval_every", "0", "--learning_rate", "1e-3"),
)


@pytest.fixture
def recipe(monkeypatch):
    """Runs a recipe in this process, in the project's root."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)

    def run(*arguments: str, name: str = "grpo_prm.py", config: str = "grpo_word_problems.yaml") -> None:
        monkeypatch.setattr(sys, "argv", [name, "--config", f"recipes/configs/{config}", *SMALL, *arguments])
        runpy.run_path(f"recipes/{name}", run_name="recipe")["main"]()

    return run


def test_a_run_on_the_worlds_own_prm_beside_the_ceiling(recipe, tmp_path, word_world, tiny_settings, word_cache):
    settings = json.dumps({**tiny_settings, "label_source": "consensus"})
    recipe(
        *("--world_settings", settings, "--stage_cache", str(word_cache), "--output_dir", str(tmp_path)),
        *("--ceiling", "true"),
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["method"] == summary["ceiling"]["method"] == "trusted" and summary["eval_problems"] == 24
    assert summary["seconds"]["prm"] == word_world.stages["prm"].seconds  # found, not built again
    start = word_world.start_accuracy()
    for kind in ("accuracy", "process_accuracy"):
        assert all(0 <= value <= 1 for value in summary[kind].values())
        assert summary[kind]["before"] == summary["ceiling"][kind]["before"] == start[kind]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "loss" in row} == {1, 2}
    assert (tmp_path / "report.html").exists() and (tmp_path / "ceiling" / "metrics.jsonl").exists()


@pytest.mark.usefixtures("empty_pages")
def test_only_the_upper_layers_learn(recipe, tmp_path, word_world, tiny_settings, word_cache):
    from safetensors.torch import load_file

    recipe(
        *("--world_settings", json.dumps(tiny_settings), "--stage_cache", str(word_cache), "--prm", "oracle"),
        *("--prm_kwargs", "{}", "--output_dir", str(tmp_path), "--method", "immediate"),
    )
    before = load_file(word_world.policy_path / "model.safetensors")
    after = load_file(tmp_path / "policy" / "model.safetensors")
    moved = {name for name, weights in after.items() if not weights.float().equal(before[name].float())}
    assert any(".layers.1." in name for name in moved)
    assert not any(".layers.0." in name or "embed_tokens" in name for name in moved)


@pytest.mark.usefixtures("empty_pages")
def test_ppo_too(recipe, tmp_path, tiny_settings, word_cache):
    recipe(
        *("--world", "word_problems", "--world_settings", json.dumps(tiny_settings), "--stage_cache", str(word_cache)),
        *("--prm", "oracle", "--output_dir", str(tmp_path), "--baseline", "", "--num_generations", "1"),
        name="ppo_prm.py",
        config="ppo_toyworld.yaml",
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows if "loss" in row} == {1, 2}


@pytest.mark.usefixtures("empty_pages")
def test_a_stopped_run_goes_on_from_its_checkpoint(recipe, tmp_path, tiny_settings, word_cache):
    given = (
        *("--world_settings", json.dumps(tiny_settings), "--stage_cache", str(word_cache), "--prm", "oracle"),
        *("--prm_kwargs", "{}", "--output_dir", str(tmp_path), "--save_strategy", "steps", "--save_steps", "1"),
    )
    recipe(*given, "--max_steps", "1")
    recipe(*given, "--resume_from_checkpoint", "true")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "wordproblems"], "world: got 'wordproblems', expected one of toyworld, word_problems"),
        (["--world_settings", '{"filler": true}'], "filler"),
        (["--prm_refresh", '{"every": 2, "labels": "judge"}'], "prm_refresh: .*word_problems"),
    ],
)
def test_bad_settings_are_one_line(recipe, arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message) as stop:
        recipe("--output_dir", str(tmp_path), "--stage_cache", str(tmp_path), *arguments)
    assert len(str(stop.value).splitlines()) == 1
