"""Starts a server for the length of a test."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
START = 900  # seconds until it must serve; half a minute on an idle machine


@contextmanager
def serving(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """The server's address, once it answers; everything it prints is in ``log``."""
    url = f"http://127.0.0.1:{port}"
    with open(log, "w") as out:
        server = subprocess.Popen(
            command, env=os.environ | ON_CPU | environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(server, f"{url}/health", log)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _wait(server: subprocess.Popen, health: str, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-4000:]
        try:
            if httpx.get(health, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"not serving after {START} s: {log.read_text()[-4000:]}")
