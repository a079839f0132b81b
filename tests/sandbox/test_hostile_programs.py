"""Two hundred programs that mean harm: none touches the trainer, and each ends as something the policy can be told."""

import os
import signal
import socket
import subprocess
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


def strangers() -> set[int]:
    """Processes of users that no account has: the sandbox's."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid >= 0x10000000 or b"sandbox/warden.py" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                pass
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
    tool = PythonTool(seconds=0.6, max_output=2000, memory=256 * 2**20)
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
    deadline = time.monotonic() + 5
    while strangers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert strangers() == set()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert tool.python("print(6 * 7)") == "42\n"
