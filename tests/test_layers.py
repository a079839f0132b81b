"""Who may import whom, held by reading the imports of every module."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BELOW_TRAINERS = ("rlhf_prm/prm", "rlhf_prm/annotate", "rlhf_prm/evaluation", "rlhf_prm/report")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def offenders(folder: str, *forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imported(path)
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


def test_reward_is_a_leaf():
    assert offenders("reward", "trl", "transformers", "accelerate", "datasets", "deepspeed", "rlhf_prm") == []


def test_only_trainers_recipes_and_toyworld_import_trl():
    for folder in BELOW_TRAINERS:
        assert offenders(folder, "trl", "rlhf_prm.trainers") == []


def test_preflight_stands_on_the_measuring_parts_and_nothing_below_imports_it():
    above = ("trl", *(f"rlhf_prm.{name}" for name in ("trainers", "experiment", "ablation", "report", "plan")))
    assert offenders("rlhf_prm/preflight", *above) == []
    below = ("reward", *BELOW_TRAINERS, "rlhf_prm/plan", "rlhf_prm/toyworld", "rlhf_prm/trainers")
    assert [found for folder in below for found in offenders(folder, "rlhf_prm.preflight")] == []


def test_nothing_imports_recipes():
    assert offenders("reward", "recipes") + offenders("rlhf_prm", "recipes") == []


def test_no_remote_code():
    sources = [p for folder in ("reward", "rlhf_prm", "recipes") for p in (ROOT / folder).rglob("*.py")]
    assert [str(p) for p in sources if "trust_remote_code=True" in p.read_text()] == []
