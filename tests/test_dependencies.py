"""pyproject.toml names what is imported, and nothing else."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOUND_BY_NAME = {"sniffio"}  # httpcore imports it where it is there; pyproject says why it is wanted
DISTRIBUTIONS = packages_distributions()


def names(requirements: list[str]) -> set[str]:
    """The distributions of requirements, as PyPI normalises them."""
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*folders: str) -> dict[str, str]:
    """Distribution → one of the files that import it; modules of our own and of Python left out."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    own = {path.stem for path in files} | {"reward", "rlhf_prm", "tests"}
    found = {}
    for path in files:
        for module in modules(path):
            if module not in own and module not in sys.stdlib_module_names:
                for name in DISTRIBUTIONS.get(module, [module]):
                    found.setdefault(normal(name), str(path.relative_to(ROOT)))
    return found


def modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


REQUIRED = names(PROJECT["dependencies"])
EXTRAS = {extra: names(requirements) for extra, requirements in PROJECT["optional-dependencies"].items()}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (["reward", "rlhf_prm", "recipes"], set(EXTRAS) - {"test"}),
        (["tests", "benchmarks"], set(EXTRAS)),
    ],
)
def test_what_is_imported_is_declared(folders, extras):
    declared = REQUIRED.union(*(EXTRAS[extra] for extra in extras))
    assert {name: path for name, path in imported(*folders).items() if name not in declared} == {}


def test_what_is_declared_is_imported():
    assert REQUIRED - imported("reward", "rlhf_prm", "recipes").keys() == FOUND_BY_NAME


def test_what_is_declared_has_a_tested_version():
    pinned = names([line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")])
    not_installed = EXTRAS["vllm"] | EXTRAS["wandb"] | {"aiohttp"}
    assert REQUIRED.union(*EXTRAS.values()) - not_installed - pinned == set()
