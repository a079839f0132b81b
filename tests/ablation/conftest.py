from pathlib import Path

import pytest
import yaml

RECIPE = Path(__file__).with_name("made_up_recipe.py")


@pytest.fixture
def write(tmp_path):
    """Write an ablation's YAML over a small default; gives its path."""

    def write(name: str = "ablation", **changes) -> Path:
        content = {
            "recipe": str(RECIPE),
            "grid": {"method": ["outcome", "good", "null"]},
            "seeds": [0, 1, 2, 3, 4, 5],
            "metrics": ["accuracy.after"],
            "launcher": "fork",
            "output_dir": str(tmp_path / name),
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
        return path

    return write
