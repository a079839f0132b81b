"""recipes/grpo_tools.py: its configs parse, tools are found by name, and a policy with an environment trains."""

import json
import math
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
import yaml

from rlhf_prm.runs.arguments import RecipeArguments, parse
from rlhf_prm.runs.tools import ToolArguments, price_of_calls, tool_world

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path for path in (ROOT / "recipes/configs").glob("*.yaml") if "grpo_tools.py" in path.read_text().splitlines()[0]
)


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["grpo_tools.py", *arguments])
        runpy.run_path("recipes/grpo_tools.py", run_name="recipe")["main"]()

    return run


def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: one.
        b: the other.
    """
    return a + b


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses(path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arguments = runpy.run_path(str(ROOT / "recipes" / "grpo_tools.py"), run_name="recipe")["ARGUMENTS"]
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(path), "--use_cpu", "true"])
    recipe, tools, config, _ = parse(arguments, default_config=path)
    given = yaml.safe_load(path.read_text())
    assert len(CONFIGS) == 2 and config.output_dir == given["output_dir"] and config.method == given["method"]
    assert (tools.tools, config.turn_scores) == (given.get("tools"), given.get("turn_scores"))
    assert recipe.columns == given.get("columns", {})


def test_tools_and_environments_by_their_dotted_paths():
    found = ToolArguments(tools=["tests.runs.test_tools_recipe.add"]).trainer_arguments()
    assert found["tools"][0](3, 4) == 7 and found["environment_factory"] is None
    with pytest.raises(ValueError, match="unknown tools 'calculator'"):
        ToolArguments(tools=["calculator"]).trainer_arguments()
    with pytest.raises(ValueError, match="tools: got nothing beside a dataset"):
        ToolArguments().trainer_arguments()
    with pytest.raises(ValueError, match="tool_kwargs: got keywords of the sandbox without"):
        ToolArguments(tool_kwargs='{"seconds": 5}')


def test_the_sandbox_by_its_name():
    pytest.importorskip("rlhf_prm.sandbox.python_tool")
    arguments = ToolArguments(tools=["python"], tool_kwargs='{"required": []}')  # whatever this machine grants
    assert arguments.trainer_arguments()["tools"][0].__name__ == "python"
    with pytest.raises(ValueError, match="tool_kwargs: "):
        ToolArguments(tools=["python"], tool_kwargs='{"sceonds": 5}').trainer_arguments()


def test_calls_cost():
    boxed = ["\\boxed{7}", "\\boxed{7}", "\\boxed{8}", "7"]
    assert price_of_calls(boxed, ["7"] * 4, [0, 2, 2, 2], price=0.05) == [0.0, -0.1, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prm", "oracle"], "prm: got 'oracle' without a dataset"),
        (["--gold_fraction", "0.5"], "gold_fraction: got 0.5 without a dataset, expected it to be left out"),
        (["--prm_kwargs", '{"a": 1}'], "prm_kwargs: got {'a': 1} without a dataset"),
        (["--world", "word_problems"], "world: got 'word_problems' without a dataset"),
        (["--ceiling", "true"], "ceiling: got True without a dataset"),
        (["--tools", "python"], "tools: got a model, tools or an environment without a dataset"),
    ],
)
def test_what_the_tool_world_has_not(recipe, tmp_path, arguments, message):
    pytest.importorskip("rlhf_prm.toyworld.tool_world")
    with pytest.raises(SystemExit, match=message):
        recipe("--output_dir", str(tmp_path / "run"), *arguments)


def test_the_tool_world_trains(recipe, tmp_path):
    """Two updates of a policy that has hardly been taught."""
    pytest.importorskip("rlhf_prm.toyworld.tool_world")
    small = {"sft_updates": 20, "sft_batch": 16, "train_problems": 64, "eval_problems": 16}
    folder = tmp_path / "run"
    recipe(
        *("--output_dir", str(folder), "--stage_cache", str(tmp_path / "cache"), "--max_steps", "2"),
        *("--per_device_train_batch_size", "8", "--num_generations", "4", "--world_settings", json.dumps(small)),
        *("--baseline", "none", "--eval_limit", "8"),
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["eval_problems"] == 8 and all(v * 8 % 1 == 0 for v in summary["accuracy"].values())
    assert summary["method"] == "mt_grpo" and all(math.isfinite(v) for v in summary["accuracy"].values())
    assert "<html" in (folder / "report.html").read_text()[:500].lower()


def test_settings_that_do_nothing_in_the_tool_world_are_said(monkeypatch):
    def stop(*_):
        raise InterruptedError

    monkeypatch.setattr("rlhf_prm.toyworld.tool_world.build_tool_world", stop)
    with (
        pytest.warns(UserWarning, match="chat: True has no effect; it needs a dataset"),
        pytest.raises(InterruptedError),
    ):
        tool_world(RecipeArguments(chat=True), seed=0)


@pytest.mark.slow
def test_the_default_learns(recipe, tmp_path):
    """The command of the documentation, without its baseline: about a minute on an idle core."""
    folder = tmp_path / "run"
    recipe("--output_dir", str(folder), "--stage_cache", str(tmp_path / "cache"), "--baseline", "none")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["accuracy"]["before"] < 0.45 and summary["accuracy"]["after"] > summary["accuracy"]["before"] + 0.2
    calls = [row["process/tool_results/mean"] for row in metrics_of(folder) if "process/tool_results/mean" in row]
    assert calls[-1] > calls[0] + 0.5  # it has found out that asking pays
