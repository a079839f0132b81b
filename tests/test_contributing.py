"""CONTRIBUTING names files, tables and commands that are there; the version is the same wherever it stands."""

import re
import tomllib
from pathlib import Path

import yaml

import rlhf_prm

ROOT = Path(__file__).resolve().parents[1]
QUOTED = re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())
SOURCES = [
    path
    for folder in ("reward", "rlhf_prm", "recipes", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
]


def test_every_file_it_names_is_there():
    names = {text for text in QUOTED if re.fullmatch(r"[\w./-]+\.(py|md|txt|toml)", text) and "NAME" not in text}
    assert len(names) > 25
    everything = [*SOURCES, *ROOT.glob("*.*"), *(ROOT / "docs").iterdir(), *(ROOT / "tests").rglob("*.txt")]
    known = {f"/{path.relative_to(ROOT).as_posix()}" for path in everything}
    assert [name for name in sorted(names) if not any(path.endswith(f"/{name}") for path in known)] == []


def test_every_table_it_names_is_there():
    names = {text for text in QUOTED if re.fullmatch(r"_?[A-Z]+(_[A-Z]+)*", text)} - {"NAME", "PYTHONPATH"}
    assert len(names) > 12
    code = "\n".join(path.read_text() for path in SOURCES)
    assert [name for name in sorted(names) if not re.search(rf"^{name}\b.* = ", code, re.MULTILINE)] == []


def test_every_command_it_names_is_there():
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if line[:1].isalpha()}
    named = {text.split()[1] for text in QUOTED if text.startswith("make ")}
    assert len(named) > 4 and named <= targets


def test_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == rlhf_prm.__version__ == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
