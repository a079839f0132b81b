"""Starts a script on two processes with one of the project's CPU configs, and reads what its ranks wrote."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Finished:
    """How a launch ended: exit code (None = killed at the deadline), everything it printed, when."""

    code: int | None
    output: str
    ended_at: float


def launch(
    config: str | Path | None, script: str, *arguments: str, port: int, deadline: float = 540, **environment: str
) -> Finished:
    """``accelerate launch --config_file CONFIG SCRIPT …`` in a process group of its own.

    ``config``: the stem of a file in recipes/accelerate, the path of any other, or None for ``--num_processes 1``.
    """
    file = config if isinstance(config, Path) else f"recipes/accelerate/{config}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", str(port)]
    command += ["--num_processes", "1"] if config is None else ["--config_file", str(file)]
    command += [script, *arguments]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=deadline)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, code = process.communicate()[0], None
    return Finished(code, output, time.time())


def rank_results(folder: Path, finished: Finished) -> list[dict]:
    """What each rank wrote last: the proof that it came through, whatever the launcher's exit code says."""
    paths = sorted(folder.glob("rank*.json"))
    assert len(paths) == 2, f"{len(paths)} ranks finished (exit code {finished.code}):\n{finished.output[-4000:]}"
    return [json.loads(path.read_text()) for path in paths]
