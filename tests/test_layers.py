"""Who may import whom, held by reading the imports of every module."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@cache
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


FLOORS = (
    ("token_text", "merged_steps", "thinking", "ray_shards", "background", "jobs", "unsharded_loading"),
    (
        "steps",
        "statistics",
        "files",
        "sandbox",
        "settings",
        "retries",
        "command_line",
        "progress",
        "tokenizer_checks",
        "step_formats",
    ),
    ("columns", "step_data"),
    ("prompts", "generation", "report"),
    ("prm", "ablation"),
    ("judges",),
    ("rl", "annotate"),
    ("evaluation", "plan", "guard"),
    ("prm_training",),
    ("toyworld",),
    ("wordproblems",),
    ("preflight",),
    ("runs",),
)
TRL = {"rl", "runs"}


def room(path: Path) -> str:
    """The package or module of rlhf_prm that a file belongs to."""
    return path.relative_to(ROOT / "rlhf_prm").parts[0].removesuffix(".py")


def test_reward_is_a_leaf():
    assert offenders("reward", "trl", "transformers", "accelerate", "datasets", "deepspeed", "rlhf_prm") == []


def test_every_room_stands_on_a_floor():
    rooms = {room(path) for path in (ROOT / "rlhf_prm").rglob("*.py")}
    assert rooms - {"__init__", "cli"} == {name for floor in FLOORS for name in floor}


def test_rooms_import_only_what_is_below_them():
    floor = {name: index for index, names in enumerate(FLOORS) for name in names}
    found = []
    for path in sorted((ROOT / "rlhf_prm").rglob("*.py")):
        own = room(path)
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("rlhf_prm.") else None
            if own in floor and other in floor and other != own and floor[other] >= floor[own]:
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    assert found == []


def test_only_training_imports_trl():
    found = {
        room(path)
        for path in (ROOT / "rlhf_prm").rglob("*.py")
        if any(n.split(".")[0] == "trl" for n in imported(path))
    }
    assert found == TRL


def test_nothing_imports_recipes():
    assert offenders("reward", "recipes") + offenders("rlhf_prm", "recipes") == []


def test_no_remote_code():
    sources = [p for folder in ("reward", "rlhf_prm", "recipes") for p in (ROOT / folder).rglob("*.py")]
    assert [str(p) for p in sources if "trust_remote_code=True" in p.read_text()] == []
