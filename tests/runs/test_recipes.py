"""The recipes: every config parses, bad input ends in one line, a run leaves what it promises."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pandas as pd
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.runs.arguments import parse
from rlhf_prm.toyworld.tiny import tiny_random_models

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
RL_CONFIGS = [path for path in CONFIGS if "recipes/grpo_prm.py" in path.read_text().splitlines()[0]]


@pytest.fixture
def unchecked_types(monkeypatch):
    """The argument parser fills transformers' own fields with values outside their annotations."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def recipe(monkeypatch, unchecked_types):
    """Runs a recipe in this process as if from the command line, in the project's root."""
    monkeypatch.chdir(ROOT)

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(f"recipes/{name}", run_name="recipe")["main"]()

    return run


@pytest.mark.parametrize("path", RL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses(path, monkeypatch, unchecked_types):
    arguments = runpy.run_path(str(ROOT / "recipes" / "grpo_prm.py"), run_name="recipe")["ARGUMENTS"]
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(path), "--use_cpu", "true"])
    recipe, config, _ = parse(arguments, default_config=path)
    given = yaml.safe_load(path.read_text())
    assert config.output_dir == given["output_dir"] and config.method == given["method"]
    assert recipe.columns == given.get("columns", {})


def test_every_file_that_a_config_names_is_shipped():
    for path in CONFIGS:
        for name, value in yaml.safe_load(path.read_text()).items():
            if isinstance(value, str) and value.endswith((".jsonl", ".json", ".parquet", ".yaml")):
                assert not value.startswith("..") and (ROOT / value).is_file(), f"{path.name}: {name}: {value}"


def test_every_config_names_its_command():
    for path in CONFIGS:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and ("accelerate launch" in first or "rlhf-prm" in first), path.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--method", "pured"], "unknown method 'pured'"),
        (["--method_kwargs", '{"weight": 1}'], "has no keyword 'weight'"),
        (["--method_kwargs", "{weight: 1}"], "method_kwargs|JSON|Expecting"),
        (["--loss_type", "drgrpo"], "loss_type: got 'drgrpo'"),
        (["--num_generations", "3"], "divisible by num_generations"),
        (["--columns", '{"prompt": "query"}'], "no column 'query' for the prompt; there are answer, question"),
        (["--columns", "question"], "columns: got 'question', expected a mapping"),
        (["--dataset", "nowhere.jsonl"], "no file at nowhere.jsonl"),
        (["--gold_fraction", "2"], "gold_fraction"),
        (["--gold_fraction", "0", "--baseline", "outcome"], "baseline: got 'outcome' for .* without a gold answer"),
        (["--dtype", "bfloat16", "--learning_rate", "1e-6"], "learning_rate: got 1e-06 for bfloat16 weights"),
        (["--model_revision", "v1", "--beta", "0.1"], "model_revision: got 'v1' beside beta 0.1, whose reference"),
        (["--model_revision", "v1", "--prm", "self"], "model_revision: got 'v1' beside prm 'self', whose reference"),
        (["--load_in_4bit", "true"], "load_in_4bit: got True, expected it to be left out"),
        (["--bnb_4bit_quant_type", "fp4"], "bnb_4bit_quant_type: got 'fp4', expected it to be left out"),
        (["--verifier", "exact"], "unknown verifier 'exact'"),
        (["--resume_from_checkpoint", "true", "--output_dir", "runs/never"], "no checkpoint in runs/never"),
        (["--config", "nothing.yaml"], "no file at nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(recipe, changes, message):
    config = [] if "--config" in changes else ["--config", "recipes/configs/gsm8k_smoke.yaml"]
    with pytest.raises(SystemExit, match=message) as stop:
        recipe("grpo_prm.py", *config, *changes)
    assert len(str(stop.value).splitlines()) == 1


def test_a_policy_is_not_a_prm(recipe, tmp_path):
    policy, _ = tiny_random_models(["some text"], tmp_path, seed=0)
    with pytest.raises(SystemExit, match="error: "):
        recipe("grpo_prm.py", "--config", "recipes/configs/gsm8k_smoke.yaml", "--prm", str(policy))


@pytest.mark.parametrize(
    ("line", "message"), [("methud: pure", "methud"), ("num_generations: four", "num_generations")]
)
def test_bad_yaml_is_one_line(recipe, tmp_path, capsys, line, message):
    path = tmp_path / "bad.yaml"
    path.write_text((ROOT / "recipes/configs/gsm8k_smoke.yaml").read_text().replace("num_generations: 4\n", "") + line)
    with pytest.raises(SystemExit) as stop:
        recipe("grpo_prm.py", "--config", str(path))
    said = f"{stop.value} {capsys.readouterr().err}"
    assert message in said and "Traceback" not in said and len(said.strip().splitlines()) <= 2


def test_gsm8k_smoke_leaves_a_whole_run(recipe, tmp_path):
    """Real problems, the real verifier, a random policy: three updates."""
    folder = tmp_path / "run"
    recipe(
        *("grpo_prm.py", "--config", "recipes/configs/gsm8k_smoke.yaml", "--output_dir", str(folder)),
        *("--stage_cache", str(tmp_path / "cache")),
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == "immediate" and summary["accuracy"] == {"before": 0.0, "after": 0.0}
    assert summary["process_accuracy"]["after"] is None and summary["versions"]["trl"] == "1.16.0"
    assert summary["settings"]["max_steps"] == 3
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in steps if "loss" in row} == {1, 2, 3}
    table = pd.read_parquet(next((folder / "completions").glob("*_00003.parquet")))
    assert len(table) == 8 and all(len(row) > 0 for row in table["step_scores"])
    AutoModelForCausalLM.from_pretrained(folder / "policy")
    AutoTokenizer.from_pretrained(folder / "policy")
    assert "<html" in (folder / "report.html").read_text()[:500].lower()
