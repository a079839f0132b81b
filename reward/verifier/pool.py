"""A pool of worker processes that can be killed: an item that hangs, crashes or needs too much memory affects no other.

A separate process, the nursery, forks the workers (see ``worker.py``).
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from reward.verifier.worker import FORK, REAP

BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from reward.verifier.worker import main; main()"
)


@dataclass(frozen=True)
class Outcome:
    """How an item ended: ``state`` is "done" (``value``: the result), "error" (``value``: which), "timeout", "died"."""

    state: str
    value: str | None
    seconds: float


@dataclass(frozen=True)
class PoolSettings:
    target: str  # "module:function", imported in the nursery; takes strings, returns a string
    deadline: float  # seconds per item
    memory_limit: int  # bytes of address space per worker
    attempts: int = 2  # an item whose worker died (not one that hung) is tried once more, on a fresh worker


@dataclass
class _Job:
    arguments: tuple[str, ...]
    future: "Future[Outcome]" = field(default_factory=Future)


Jobs = queue.SimpleQueue[_Job | None]  # None: stop


@dataclass(frozen=True)
class _Worker:
    pid: int
    connection: Connection
    nursery: "subprocess.Popen[bytes]"  # the process that forked it; only there is ``pid`` sure to mean this worker


class _Nursery:
    """The trainer's handle on the nursery process: it starts it, asks it for workers and replaces it when it dies."""

    def __init__(self, settings: PoolSettings):
        self.settings = settings
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None
        self.closed = False

    def worker(self) -> _Worker:
        """A fresh worker.

        Raises:
            RuntimeError: the nursery does not start, so no answer can be verified.
        """
        with self.lock:
            for attempt in (1, 2):
                if self.closed:
                    raise RuntimeError("the verifier was closed while answers were waiting to be verified")
                try:
                    return self._fork()
                except OSError:
                    self._stop()
                    if attempt == 2:
                        raise RuntimeError(
                            f"the verifier's worker process does not start; does `{sys.executable} -c 'import reward, "
                            "latex2sympy2_extended'` work?"
                        ) from None
            raise AssertionError("unreachable")

    def kill(self, worker: _Worker) -> None:
        """End a worker. Its id cannot belong to another process yet: the nursery reaps it only when asked to."""
        worker.connection.close()
        with self.lock:
            if worker.nursery is not self.process or self.control is None:
                return  # it died with its nursery
            try:
                os.kill(worker.pid, signal.SIGKILL)
                self.control.sendall(REAP + worker.pid.to_bytes(8, "big"))
                self._read(len(REAP))
            except OSError:
                self._stop()

    def close(self) -> None:
        self.closed = True
        process = self.process
        if process is not None:
            process.kill()  # before the lock: a thread that holds it may be waiting for this process
        with self.lock:
            self._stop()

    def _fork(self) -> _Worker:
        if self.control is None:
            self._start()
        assert self.control is not None and self.process is not None  # _start has set both
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self.control, [FORK], [theirs.fileno()])
            pid = int.from_bytes(self._read(8), "big")
            return _Worker(pid, Connection(ours.detach()), self.process)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        settings = {
            "path": [entry or os.getcwd() for entry in sys.path],
            "descriptor": theirs.fileno(),
            "parent": os.getpid(),
            "target": self.settings.target,
            "memory_limit": self.settings.memory_limit,
        }
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", BOOTSTRAP, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.control = ours
        self._read(len(b"ready"))

    def _read(self, size: int) -> bytes:
        assert self.control is not None  # only called after _start
        data = b""
        while len(data) < size:
            part = self.control.recv(size - len(data))
            if not part:
                raise ConnectionResetError("the nursery is gone")
            data += part
        return data

    def _stop(self) -> None:
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            self.process.kill()  # its workers die with it
            self.process.wait()
            self.process = None


def _attempt(worker: _Worker, job: _Job, deadline: float) -> tuple[Outcome, bool]:
    """Run a job on a worker. Returns the outcome and whether the worker can take another job."""
    start = time.perf_counter()
    try:
        worker.connection.send_bytes(json.dumps(job.arguments).encode())
        if not worker.connection.poll(deadline):
            return Outcome("timeout", None, time.perf_counter() - start), False
        reply = json.loads(worker.connection.recv_bytes())
    except (EOFError, OSError):
        return Outcome("died", None, time.perf_counter() - start), False
    state = "done" if "value" in reply else "died" if reply["error"] == "MemoryError" else "error"
    return Outcome(state, reply.get("value", reply.get("error")), time.perf_counter() - start), not reply["last"]


def _serve(nursery: _Nursery, jobs: Jobs) -> None:
    """The thread behind one worker: it gives it jobs one by one and replaces it when it is lost."""
    worker = None
    settings = nursery.settings
    while True:
        try:
            worker = worker or nursery.worker()  # started before the first job, so that the job need not wait for it
        except RuntimeError as error:
            failure = error
        job = jobs.get()
        if job is None:
            return
        if worker is None:
            job.future.set_exception(failure)
            continue
        for _ in range(settings.attempts):
            outcome, alive = _attempt(worker, job, settings.deadline)
            if not alive:
                nursery.kill(worker)
                worker = None
            if outcome.state != "died" or outcome.value == "MemoryError":
                break
            try:
                worker = nursery.worker()
            except RuntimeError:
                break
        job.future.set_result(outcome)


def _shut_down(nursery: _Nursery, jobs: Jobs, threads: int) -> None:
    nursery.close()
    for _ in range(threads):
        jobs.put(None)


class WorkerPool:
    """``workers`` processes that run ``settings.target`` on strings, each item under a deadline and a memory limit.

    The processes start in the background at construction. The pool forks, so it needs Linux or macOS. It may be used
    from any thread.
    """

    def __init__(self, workers: int, settings: PoolSettings):
        self.workers = workers
        self.settings = settings
        self._nursery = _Nursery(settings)
        self._jobs: Jobs = queue.SimpleQueue()
        for index in range(workers):
            threading.Thread(
                target=_serve, args=(self._nursery, self._jobs), name=f"verifier-{index}", daemon=True
            ).start()
        self.close = weakref.finalize(self, _shut_down, self._nursery, self._jobs, workers)

    @property
    def closed(self) -> bool:
        return not self.close.alive

    def submit(self, *arguments: str) -> "Future[Outcome]":
        """Queue one item."""
        if self.closed:
            raise RuntimeError("this pool is closed: make a new one")
        job = _Job(arguments)
        self._jobs.put(job)
        return job.future
