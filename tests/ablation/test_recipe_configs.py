"""The shipped ablations: every cell is something the recipe accepts."""

from pathlib import Path

import pytest

from reward import METHODS
from rlhf_prm.ablation.config import load_config
from rlhf_prm.guard.actions import ACTIONS
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.toyworld.settings import ToyWorldSettings

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
        ToyWorldSettings(**(arguments.get("world_settings") or {}))
        assert arguments.get("guard", "off") in ACTIONS and arguments["baseline"] is None
        assert arguments["max_steps"] == config.budget.get("updates", arguments["max_steps"])


def test_the_default_ablation_has_every_method_in_every_world(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config("recipes/configs/ablation_default.yaml")
    labels = [dict(cell.labels) for cell in config.cells()]
    for world in ("plain", "filler", "long", "gold10"):
        assert {row["method"] for row in labels if row["world"] == world} == {*METHODS, "ceiling"}
    assert len(config.seeds) >= 5
