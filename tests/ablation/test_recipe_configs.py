"""The shipped ablations: every cell is something the recipe accepts."""

from pathlib import Path

import pytest

from reward import METHODS
from rlhf_prm.ablation.config import load_config
from rlhf_prm.guard.actions import ACTIONS
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.wordproblems.settings import WordWorldSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("ablation_*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_cell_is_sound(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(path)
    alone = path.stem == "ablation_null"  # one method, compared with itself
    assert Path(config.recipe).exists() and len(config.cells()) >= (1 if alone else 2)
    for cell in config.cells():
        arguments = cell.arguments
        StepAdvantages(arguments["method"], arguments.get("method_kwargs") or {})
        settings = WordWorldSettings if arguments.get("world") == "word_problems" else ToyWorldSettings
        settings(**(arguments.get("world_settings") or {}))
        assert arguments.get("guard", "off") in ACTIONS and arguments["baseline"] is None
        assert arguments["max_steps"] == config.budget.get("updates", arguments["max_steps"])


OF_TURNS = {"gigpo", "mt_grpo", "gtpo"}  # nobody calls a tool in these worlds; benchmarks/turns.py has one that does


def test_the_default_ablation_has_every_method_in_every_world(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config("recipes/configs/ablation_default.yaml")
    labels = [dict(cell.labels) for cell in config.cells()]
    for world in ("plain", "filler", "long", "gold10"):
        assert {row["method"] for row in labels if row["world"] == world} == {*METHODS, "ceiling"} - OF_TURNS
    assert len(config.seeds) >= 5


def test_the_second_laboratory_shows_the_few_methods_that_matter(monkeypatch):
    """Each with the scorer it is about: exact labels for the ceiling, with no keyword left of the learned PRM's."""
    monkeypatch.chdir(ROOT)
    config = load_config("recipes/configs/ablation_word_problems.yaml")
    cells = {dict(cell.labels)["method"]: cell.arguments for cell in config.cells()}
    assert list(cells) == ["outcome", "trusted", "clip_delta", "ceiling"] and len(config.seeds) >= 3
    assert all(arguments["world"] == "word_problems" for arguments in cells.values())
    assert cells["ceiling"]["method"] == cells["trusted"]["method"] == "trusted"
    assert cells["ceiling"]["prm"] == "oracle" and not cells["ceiling"]["prm_kwargs"]
    assert "prm" not in cells["trusted"] and cells["trusted"]["prm_kwargs"]["dtype"] == "bfloat16"
