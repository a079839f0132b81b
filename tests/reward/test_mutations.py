"""Break one formula at a time in a copy of ``reward``: the tests of this folder must notice every time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reward.mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("credit", "shaping", "methods", "identities", "rollouts", "schedules", "hacking", "trl_parity", "trusted")


def fails(copy: Path, file: str = "") -> bool:
    """Whether the tests of the copy fail (an error outside of a test does not count); those of ``file`` run first."""
    files = [f"tests/reward/test_{name}.py" for name in sorted(TESTS, key=lambda name: name not in file)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=580)
    assert result.returncode in (0, 1) and "ERROR" not in result.stdout, result.stdout[-2000:] + result.stderr[-2000:]
    return result.returncode == 1


@pytest.fixture
def copy(tmp_path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "reward", tmp_path / "reward", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "reward", tmp_path / "tests" / "reward", ignore=ignored)
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_mutation_still_applies():
    for file, right, wrong in MUTATIONS:
        assert (ROOT / "reward" / file).read_text().count(right) == 1, (file, right)
        assert right != wrong


@pytest.mark.slow
def test_the_unbroken_copy_passes(copy):
    assert not fails(copy)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "right", "wrong"), MUTATIONS)
def test_a_broken_formula_is_noticed(copy, file, right, wrong):
    path = copy / "reward" / file
    path.write_text(path.read_text().replace(right, wrong))
    assert fails(copy, file), f"{file}: {wrong!r} in place of {right!r} went unnoticed"
