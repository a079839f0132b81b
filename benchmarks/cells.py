"""Cells of a study: each is one run, described as JSON, done once and kept as a line of a results file."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from filelock import FileLock, Timeout

from rlhf_prm.files import read_json_lines

Cell = dict[str, Any]


def one_quiet_thread() -> None:
    """Nothing but results is printed, and a process takes one thread, so that two share two cores."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)


def work(
    cells: Iterable[Cell],
    run: Callable[[Cell], dict[str, Any]],
    results: Path,
    locks: Path,
    told: Callable[[dict[str, Any]], str],
) -> None:
    """Run the cells that no call has finished or is running; append each result when it is there.

    Args:
        results: JSON lines of ``cell`` and what ``run`` gave; several calls may share it.
        locks: folder of the locks by which a call claims a cell.
        told: a result in a few words, for the line that is printed.
    """
    locks.mkdir(parents=True, exist_ok=True)
    for one in cells:
        name = name_of(one)
        try:
            with FileLock(locks / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock", timeout=0):
                if name in {name_of(row["cell"]) for row in rows_of(results)}:
                    continue
                result = run(one)
                with FileLock(locks / "results.lock"), results.open("a") as file:
                    file.write(json.dumps({"cell": one, **result}) + "\n")
                print(f"{name}: {told(result)}", flush=True)
        except Timeout:
            continue


def rows_of(results: Path) -> list[dict[str, Any]]:
    """What has been finished so far."""
    return read_json_lines(results, may_be_cut=True) if results.exists() else []


def name_of(one: Cell) -> str:
    """The same text for the same cell."""
    return json.dumps(one, sort_keys=True)
