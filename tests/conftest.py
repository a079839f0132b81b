"""Shared fixtures. Everything runs offline, on tiny models made in the tests."""

import functools
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Several processes share the cores (Makefile), and the models are tiny: further threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

DATA_VARIABLE = "RLHF_PRM_DATA"
SHARED = Path(os.environ.get(DATA_VARIABLE, Path(__file__).resolve().parents[2] / "shared" / "data"))


# Tests that train, launch, build a world, draw pages, or wait for servers and processes: `make test-fast` leaves them
# out. Their fast siblings are the unit tests of the same folders and of reward/, which run everywhere.
LONG = (
    *("distributed/", "rehearsal/", "runs/", "toyworld/", "rl/", "prm_training/", "sandbox/", "real/"),
    *("ablation/test_launch.py", "guard/test_hackguard.py", "guard/test_last_good.py", "plan/test_gpu_benchmark.py"),
    *(f"annotate/test_{name}.py" for name in ("annotate_crash", "endpoint", "ray")),
    *("judges/test_judge_endpoint.py", "prm/test_server.py", "prm/test_zero3.py"),
    *(f"report/test_{name}.py" for name in ("browser", "drawing", "page", "pictures")),
    *(f"verifier/test_{name}.py" for name in ("adversarial", "verifier", "worker_pool")),
    *(
        f"wordproblems/test_{name}.py"
        for name in ("real_lm_recipe", "text_sampler", "word_preflight", "word_problems", "word_recipe", "word_world")
    ),
    *("test_dependencies.py", "test_lazy_names.py"),
)
TOGETHER = ("tests/toyworld", "tests/wordproblems", "tests/sandbox")


def is_long(item: pytest.Item) -> bool:
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    return path.startswith(LONG)


def group_of(nodeid: str) -> str:
    """Which tests run in the same process under xdist.

    Those of a file, all that one launch or one world serves, and the sandbox's, whose programs have time
    limits.
    """
    path, _, test = nodeid.partition("::")
    if path.startswith("tests/distributed/") and (config := re.search(r"\[(cpu_\w+|fsdp2)", test)):
        return f"two ranks, {config[1]}"
    return next((folder for folder in TOGETHER if path.startswith(folder)), path)


@pytest.hookimpl(optionalhook=True)  # unknown without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups by the names of tests: the marks that xdist has for it, its version 3.8 loses under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if is_long(item):
            item.add_marker(pytest.mark.long)
    if hasattr(config, "workerinput"):  # a process of xdist's
        # The longest first: what comes last is so short that no process waits for the other at the end.
        items.sort(key=lambda item: ("two_ranks" not in item.fixturenames, not is_long(item)))


# Trainers collect garbage at the end of each training. Among all that torch, TRL and the tests have imported this takes
# half a second, longer than most trainings: so the collector is told to leave alone what has been imported.


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports leave no garbage


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.enable()
    freeze()
    if "datasets" in sys.modules:
        forget_earlier_maps()
    if "accelerate" in sys.modules:
        remember_packages()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is not None and nextitem.path != item.path:
        freeze()  # what the tests of this file were the first to import


def freeze() -> None:
    gc.collect()
    gc.freeze()


def forget_earlier_maps() -> None:
    """``Dataset.map`` does not look whether it has done the same before.

    It would pickle the function with all functions that it calls, to know it again: 0.4 s a time where types are
    checked. No test maps the same rows by the same function twice.
    """
    from datasets import arrow_dataset, fingerprint

    for module in (fingerprint, arrow_dataset):
        module.update_fingerprint = lambda *_: fingerprint.generate_random_fingerprint()


def remember_packages() -> None:
    """accelerate reads a package's metadata once, and not at every update to ask for DeepSpeed and PEFT."""
    from accelerate.utils import imports

    imports._is_package_available = functools.cache(imports._is_package_available)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of whole public data sets, which a clone does not have; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs whole data sets that are not shipped (GSM8K outputs, MATH-500, ProcessBench, MR-Ben, PRMBench, "
            f"OpenR samples): a folder of them, named by {DATA_VARIABLE}"
        )
    return SHARED


@pytest.fixture
def empty_pages(monkeypatch) -> None:
    """A run's page is an empty file: drawing its charts takes longer than to train a small run."""

    def left(folder: Path) -> Path:
        page = folder / "report.html"
        page.write_text("")
        return page

    monkeypatch.setattr("rlhf_prm.runs.train.write_report", left)
