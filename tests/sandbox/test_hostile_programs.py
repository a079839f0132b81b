"""Two hundred programs that mean harm: none touches the trainer, and each ends as something the policy can be told."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_prm.sandbox import PythonTool, granted_protections
from tests.sandbox.hostile_programs import programs

LACKING = [f"{name}: {why}" for name, why in granted_protections().items() if why]
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"this machine does not grant the protections ({LACKING})")
HEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


@pytest.fixture
def heard():
    """The signals that this process gets."""
    got = []
    before = {number: signal.signal(number, lambda n, frame: got.append(n)) for number in HEARD}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


class WatchedTool(PythonTool):
    """Knows its own processes: other tests may have a sandbox at the same time, and theirs are not counted."""

    def __init__(self, **limits):
        super().__init__(**limits)
        self._started: list[tuple[int, bytes]] = []  # the user of each program, and its folder

    def _settings(self, root):
        settings = super()._settings(root)
        self._started.append((settings["uid"], root.encode()))
        return settings

    def running(self) -> dict[int, str]:
        """The processes that are still there, with their command lines."""
        users, folders = {uid for uid, _ in self._started}, [folder for _, folder in self._started]
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes()
                    if entry.stat().st_uid in users or any(folder in command for folder in folders):
                        found[int(entry.name)] = command.decode("utf-8", "replace")
        return found


def test_none_of_two_hundred_harms_the_trainer(tmp_path, monkeypatch, listener, heard):
    monkeypatch.setenv("SANDBOX_CANARY", "secret-of-the-trainer")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    canary = tmp_path / "canary"
    canary.write_text("alive secret-of-the-trainer")
    bystander = subprocess.Popen(["sleep", "600"])
    descriptors = len(os.listdir("/proc/self/fd"))
    cases = programs(str(canary), listener.getsockname()[1], os.getpid())
    assert len(cases) == 200 == len({name for name, _, _ in cases})
    tool = WatchedTool(seconds=0.6, max_output=2000, memory=256 * 2**20)
    with ThreadPoolExecutor(6) as pool:
        ended = list(pool.map(lambda case: tool.execute(case[1]), cases))
    wrong = [
        (name, execution.state, execution.text[-300:])
        for (name, _, states), execution in zip(cases, ended, strict=True)
        if execution.state not in states
    ]
    assert wrong == []
    assert not [name for (name, *_), execution in zip(cases, ended, strict=True) if "secret-of" in execution.text]
    assert not [name for (name, *_), execution in zip(cases, ended, strict=True) if "traced" in execution.text]
    assert max(len(execution.text) for execution in ended) <= 8000

    assert bystander.poll() is None and heard == []
    bystander.kill()
    bystander.wait()
    assert canary.read_text() == "alive secret-of-the-trainer"
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert list((tmp_path / "temporary").iterdir()) == []
    deadline = time.monotonic() + 30
    while tool.running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tool.running() == {}
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert tool.python("print(6 * 7)") == "42\n"


def test_a_program_is_seen_while_it_runs_and_gone_when_its_time_is_up():
    tool = WatchedTool(seconds=2)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(tool.execute, "import subprocess; subprocess.run(['/bin/sleep', '600'])")
        seen = set()
        while not ended.done():
            seen |= {Path(command.split("\0")[0]).name for command in tool.running().values()}
            time.sleep(0.05)
    assert ended.result().state == "timeout"
    assert Path(sys.executable).name in seen  # the warden
    if os.getuid() == 0:  # what the program has started is another user's then, and can be told by that
        assert "sleep" in seen
    deadline = time.monotonic() + 30
    while tool.running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tool.running() == {}
