"""recipes/ppo_prm.py: its configs parse, a run with its baseline leaves a whole folder."""

import json
import runpy
import sys
from pathlib import Path

import jaxtyping
import pytest
import yaml
from transformers import AutoModelForCausalLM

from rlhf_prm.rl.critic import CRITIC_FILE
from rlhf_prm.runs.arguments import parse

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [p for p in (ROOT / "recipes" / "configs").glob("*.yaml") if "ppo_prm.py" in p.read_text().splitlines()[0]]


@pytest.fixture
def main_of_recipe(monkeypatch):
    """The recipe's names; transformers' own fields are filled with values outside their annotations."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(ROOT)
    return runpy.run_path("recipes/ppo_prm.py", run_name="recipe")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses(path, main_of_recipe, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe", "--config", str(path), "--use_cpu", "true"])
    _, config, _ = parse(main_of_recipe["ARGUMENTS"], default_config=path)
    given = yaml.safe_load(path.read_text())
    for name in ("shaping", "process_weight", "critic", "critic_init", "critic_learning_rate", "num_generations"):
        if name in given:
            assert getattr(config, name) == given[name]
    assert config.label == "ppo_dense" and config.baseline("outcome").label == "ppo_outcome"
    with pytest.raises(ValueError, match="expected 'outcome'"):
        config.baseline("pure")


def test_gsm8k_smoke_leaves_two_whole_runs(main_of_recipe, monkeypatch, tmp_path):
    """Real problems, the real verifier, a critic from the PRM, a KL in the reward; dense and outcome only."""
    arguments = ["--config", "recipes/configs/ppo_gsm8k_smoke.yaml", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["ppo_prm.py", *arguments, "--stage_cache", str(tmp_path / "cache")])
    main_of_recipe["main"]()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["method"], summary["baseline"]["method"]) == ("ppo_dense", "ppo_outcome")
    for folder in (tmp_path / "run", tmp_path / "run" / "baseline"):
        logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [entry for entry in logs if "loss" in entry]
        assert len(losses) == 3 and all("kl" in entry and "critic/value_loss" in entry for entry in losses)
        AutoModelForCausalLM.from_pretrained(folder / "policy")
        assert (folder / "policy" / CRITIC_FILE).exists() and (folder / "completions").is_dir()
    assert "<html" in (tmp_path / "run" / "report.html").read_text()[:500].lower()
