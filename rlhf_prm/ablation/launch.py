"""Runs the cells of an ablation, each in its own process and folder. Finished cells are kept, failures are recorded."""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf_prm.ablation.children import Child, Start, forked, launched
from rlhf_prm.ablation.config import AblationConfig, Cell, Overrides
from rlhf_prm.files import read_json, write_json

CONFIG, LOG, FAILED = "cell.yaml", "log.txt", "failed.json"


@dataclass(frozen=True)
class CellRun:
    """One cell with one seed."""

    cell: Cell
    seed: int
    folder: Path

    @property
    def arguments(self) -> Overrides:
        """What the recipe is given."""
        return {**self.cell.arguments, "seed": self.seed, "output_dir": str(self.folder)}

    @property
    def state(self) -> str:
        """ "done", "failed", or "open"."""
        summary = self.folder / "summary.json"
        if summary.exists() and "unfinished" not in read_json(summary):  # the run's baseline may not have run yet
            return "done"
        return "failed" if (self.folder / FAILED).exists() else "open"

    def check(self) -> None:
        """Refuse a folder that was run, or is being run, with other arguments than these.

        Raises:
            ValueError: naming the arguments that differ.
        """
        written, log = self.folder / CONFIG, self.folder / LOG
        running = log.exists() and _locked(log)
        if (self.state == "open" and not running) or not written.exists():
            return
        had, wanted = yaml.safe_load(written.read_text()), json.loads(json.dumps(self.arguments))
        differing = [key for key in {**had, **wanted} if had.get(key) != wanted.get(key)]
        if differing:
            key = differing[0]
            raise ValueError(
                f"{self.folder} was run with {key}={had.get(key)!r}, the configuration now says {wanted.get(key)!r}; "
                "give another output_dir, or delete that folder"
            )


def cell_runs(config: AblationConfig) -> list[CellRun]:
    """Every cell with every seed.

    A seed's cells are adjacent, so that an interrupted ablation is still paired; with ``parallel`` slots as many seeds
    run at once, so that no two slots wait for the same world.
    """
    root, cells = Path(config.output_dir) / "cells", config.cells()
    together = [config.seeds[i : i + config.parallel] for i in range(0, len(config.seeds), config.parallel)]
    return [
        CellRun(cell, seed, root / cell.name / f"seed{seed}") for seeds in together for cell in cells for seed in seeds
    ]


def run_cells(config: AblationConfig, retry: bool = False, say: Callable[[str], Any] = print) -> list[CellRun]:
    """Run the unfinished cells, ``config.parallel`` at a time.

    A cell that an earlier call has left running is waited for, not started twice.

    Args:
        retry: run failed cells again; otherwise a failure stays as it is.
        say: called with a line about every cell.

    Raises:
        ValueError: a folder was run with other arguments.
    """
    runs = cell_runs(config)
    for run in runs:
        run.check()
    waiting = [run for run in runs if run.state == "open" or (retry and run.state == "failed")]
    say(f"{len(runs)} cells: {len(runs) - len(waiting)} finished already, {len(waiting)} to run")
    start = forked(config.recipe, config.parallel) if config.launcher == "fork" and waiting else launched(config)
    running: dict[int, _Started] = {}
    try:
        while waiting or running:
            for slot in set(range(config.parallel)) - set(running) if waiting else ():
                if waiting:
                    running[slot] = _begin(waiting.pop(0), start, slot)
            for slot, started in list(running.items()):
                if started.child.poll() is not None:
                    _end(running.pop(slot), say)
            time.sleep(0.05)
    except BaseException:
        for started in running.values():  # an interrupt leaves no trace of a failure
            started.child.stop()
        raise
    return runs


@dataclass(frozen=True)
class _Started:
    run: CellRun
    child: Child
    since: float


def _begin(run: CellRun, start: Start, slot: int) -> _Started:
    log = run.folder / LOG
    if run.state == "done":  # another call has finished it since this one began
        return _Started(run, Child(lambda: 0, lambda: None), time.monotonic())
    if log.exists() and _locked(log):
        return _Started(run, Child(lambda: None if _locked(log) else 0, lambda: None), time.monotonic())
    shutil.rmtree(run.folder, ignore_errors=True)  # files of a killed or failed run
    run.folder.mkdir(parents=True)
    (run.folder / CONFIG).write_text(yaml.safe_dump(run.arguments, sort_keys=False))
    with log.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # held by the cell and its children, whose output it is, until all have ended
        values = {"config": str(run.folder / CONFIG), "output_dir": str(run.folder), "name": run.cell.name}
        child = start({**values, "seed": run.seed, "slot": slot}, file)
    return _Started(run, child, time.monotonic())


def _locked(log: Path) -> bool:
    with log.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _end(started: _Started, say: Callable[[str], Any]) -> None:
    run, seconds = started.run, time.monotonic() - started.since
    if run.state != "done":
        last = (run.folder / LOG).read_text(errors="replace").splitlines()[-30:]
        failure = {"status": started.child.poll(), "seconds": round(seconds, 1), "log": last}
        write_json(run.folder / FAILED, failure)
    say(f"{run.cell.name} seed {run.seed}: {run.state} in {seconds:.0f} s")


def failures(runs: Iterable[CellRun]) -> list[tuple[CellRun, dict[str, Any]]]:
    """The failed runs with their records."""
    return [(run, read_json(run.folder / FAILED)) for run in runs if run.state == "failed"]
