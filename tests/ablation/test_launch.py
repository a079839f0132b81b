"""Running: once each, failures kept, killed and resumed gives the same table."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rlhf_prm.ablation.config import load_config
from rlhf_prm.ablation.launch import cell_runs, run_cells
from rlhf_prm.cli import main

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "{python} {recipe} --config {config}"


def states(path) -> list[str]:
    return [run.state for run in cell_runs(load_config(path))]


@pytest.mark.parametrize("launcher", ["fork", COMMAND])
def test_every_cell_runs_once(write, launcher):
    path = write(seeds=[0, 1], launcher=launcher)
    said: list[str] = []
    runs = run_cells(load_config(path), say=said.append)
    assert [run.state for run in runs] == ["done"] * 6 and len(said) == 7
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1, 1]  # whole seeds first
    before = {run.folder: (run.folder / "summary.json").stat().st_mtime_ns for run in runs}
    again = run_cells(load_config(path), say=said.append)
    assert {run.folder: (run.folder / "summary.json").stat().st_mtime_ns for run in again} == before
    assert said[-1] == "6 cells: 6 finished already, 0 to run"


def test_what_another_call_finishes_meanwhile_is_left_alone(write):
    path = write(seeds=[0])
    last = cell_runs(load_config(path))[-1]

    def finish_the_last(said: str) -> None:
        if said.endswith(" s") and not last.folder.exists():  # the first cell is done
            last.folder.mkdir(parents=True)
            (last.folder / "summary.json").write_text('{"by": "another"}')

    runs = run_cells(load_config(path), say=finish_the_last)
    assert [run.state for run in runs] == ["done"] * 3
    assert (last.folder / "summary.json").read_text() == '{"by": "another"}'


@pytest.mark.parametrize("launcher", ["fork", COMMAND])
def test_a_failure_is_kept_shown_and_run_again_only_when_asked(write, tmp_path, capsys, launcher):
    path = write(seeds=[0, 1], fixed={"broken": "null"}, launcher=launcher)
    assert main(["ablate", "--config", str(path)]) == 0
    assert states(path).count("failed") == 2 and states(path).count("done") == 4
    folder = tmp_path / "ablation"
    failed = json.loads((folder / "table.json").read_text())["failed"]
    assert [(told["cell"], told["seed"], told["status"]) for told in failed] == [
        ("method=null", 0, 1),
        ("method=null", 1, 1),
    ]
    assert "RuntimeError: the loss is NaN" in (folder / "table.md").read_text()
    assert "RuntimeError: the loss is NaN" in (folder / "report.html").read_text()
    assert "2 of 6 runs failed" in capsys.readouterr().out
    log = folder / "cells" / "method=null" / "seed0" / "log.txt"
    first = log.stat().st_mtime_ns
    main(["ablate", "--config", str(path)])
    assert log.stat().st_mtime_ns == first
    main(["ablate", "--config", str(path), "--retry"])
    assert log.stat().st_mtime_ns > first


def test_cells_side_by_side_have_slots_of_their_own(write, tmp_path):
    launcher = "{python} -c \"import sys, runpy; print('slot', sys.argv[1]); sys.argv[1:2] = []; " \
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')\" {slot} {recipe} --config {config}"  # fmt: skip
    runs = run_cells(load_config(write(seeds=[0, 1], launcher=launcher, parallel=3)), say=lambda _: None)
    assert all(run.state == "done" for run in runs)
    assert {(run.folder / "log.txt").read_text().splitlines()[0] for run in runs} == {"slot 0", "slot 1", "slot 2"}


def test_a_launcher_with_an_unknown_field_is_refused(write, capsys):
    assert main(["ablate", "--config", str(write(launcher="{python} {script}"))]) == 2
    assert "no 'script' to put into" in capsys.readouterr().err


def test_other_arguments_in_the_same_folder_are_refused(write, capsys):
    assert main(["ablate", "--config", str(write(seeds=[0], fixed={"max_steps": 10}))]) == 0
    assert main(["ablate", "--config", str(write(seeds=[0], fixed={"max_steps": 20}))]) == 2
    assert "was run with max_steps=10, the configuration now says 20" in capsys.readouterr().err
    assert main(["ablate", "--table-only", "--config", str(write(seeds=[0], fixed={"max_steps": 20}))]) == 2
    assert "was run with max_steps=10, the configuration now says 20" in capsys.readouterr().err


def test_other_arguments_of_a_cell_that_still_runs_are_refused(write):
    """An earlier call was killed, and its cell was not: it would be waited for and taken for one of these."""
    [run] = cell_runs(load_config(write(seeds=[0], grid={"method": ["outcome"]})))
    run.folder.mkdir(parents=True)
    (run.folder / "cell.yaml").write_text(yaml.safe_dump(run.arguments | {"max_steps": 7}))
    with (run.folder / "log.txt").open("wb") as log:
        run.check()  # killed, too: it is run anew
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="was run with max_steps=7"):
            run.check()


@pytest.mark.parametrize("launcher", ["fork", COMMAND])
def test_killed_and_resumed_gives_the_same_table(write, tmp_path, launcher):
    seeds, gate = [0, 1, 2], tmp_path / "gate"
    whole = write("whole", seeds=seeds, launcher=launcher, fixed={"gate": None})
    assert main(["ablate", "--config", str(whole)]) == 0
    path = write("killed", seeds=seeds, launcher=launcher, fixed={"gate": str(gate)})
    command = [sys.executable, "-m", "rlhf_prm.cli", "ablate", "--config", str(path)]
    waits = tmp_path / "killed" / "cells" / "method=good" / "seed1" / "log.txt"
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    while not waits.exists() and process.poll() is None:
        time.sleep(0.01)  # until the cell that waits at the gate has begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states(path).count("done") == 4
    gate.write_text("")  # the orphaned cell goes on; resuming waits for it, or finds it done
    assert main(["ablate", "--config", str(path)]) == 0
    tables = [(tmp_path / name / "table.json").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1] and states(path) == ["done"] * 9


def test_an_interrupt_leaves_no_failure_behind(write, tmp_path):
    path = write(seeds=[0, 1], launcher=COMMAND, fixed={"gate": str(tmp_path / "gate")})
    said = []

    def interrupt(text: str) -> None:
        said.append(text)
        if text.startswith("method=outcome seed 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(load_config(path), say=interrupt)
    assert states(path) == ["done"] * 4 + ["open"] * 2
