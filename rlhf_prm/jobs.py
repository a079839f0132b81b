"""run_jobs: the commands of a pipeline, each begun as soon as those it needs have finished, a few at once."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PAUSE = 0.05  # seconds between two looks at the running commands
GRACE = 10.0  # seconds that a job has to end by a signal, before it is given another one


@dataclass(frozen=True)
class Job:
    """A command of a pipeline.

    Args:
        needs: names of the jobs that must have finished before it begins.
        finished: True leaves it out; its results are there already.
    """

    name: str
    command: Sequence[str]
    needs: tuple[str, ...] = ()
    finished: bool = False


class JobsStopped(RuntimeError):
    """Not every job was run: one failed, or the time was over."""


def run_jobs(
    jobs: Sequence[Job],
    parallel: int = 1,
    *,
    minutes: float = float("inf"),
    say: Callable[[str], Any] = print,
) -> None:
    """Run the jobs, ``parallel`` of them at a time; of those that may begin, the first in the list begins.

    Jobs write to this process's output. When an interrupt or an error ends this call, the jobs are ended too (SIGTERM).

    Args:
        minutes: a budget; when they are over, no job begins.
        say: called with a line at the beginning and the end of every job.

    Raises:
        JobsStopped: a job failed, or the minutes were over, and jobs are left. Those that ran beside it have finished.
        ValueError: a name stands twice, a need is not among the jobs, or jobs need each other.
    """
    _check(jobs)
    start = time.monotonic()
    waiting = [job for job in jobs if not job.finished]
    finished = {job.name for job in jobs if job.finished}
    running: dict[str, tuple[subprocess.Popen, float]] = {}
    failed: list[str] = []

    def tell(text: str) -> None:
        say(f"[{(time.monotonic() - start) / 60:5.1f} min] {text}")

    try:
        while waiting or running:
            begins = not failed and (time.monotonic() - start) / 60 < minutes
            for job in [job for job in waiting if finished.issuperset(job.needs)] if begins else ():
                if len(running) < parallel:
                    waiting.remove(job)
                    tell(f"{job.name} begins")
                    running[job.name] = subprocess.Popen(job.command), time.monotonic()
            if not running:
                break
            for name, (process, since) in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[name]
                took = f"after {(time.monotonic() - since) / 60:.1f} min"
                if status:
                    failed.append(name)
                    beside = f"; nothing else begins, {', '.join(running)} goes on" if running else ""
                    tell(f"{name} failed with status {status} {took}{beside}")
                else:
                    finished.add(name)
                    tell(f"{name} finished {took}")
            time.sleep(PAUSE)
    except BaseException as error:
        for process, _ in running.values():
            _end(process, told=isinstance(error, KeyboardInterrupt))
        raise
    if failed:
        raise JobsStopped(f"failed: {', '.join(failed)}; the message is above, and the same command goes on there")
    if waiting:
        spent = (time.monotonic() - start) / 60
        raise JobsStopped(f"{spent:.0f} minutes spent, next is {waiting[0].name}; the same command continues there")


def _end(process: subprocess.Popen, told: bool) -> None:
    """End a job. A terminal has ``told`` it already: a second signal could meet it while it cleans up."""
    if not told:
        process.terminate()
    for harder in (process.terminate, process.kill):
        try:
            process.wait(timeout=GRACE)
            return
        except subprocess.TimeoutExpired:
            harder()
    process.wait()


def _check(jobs: Sequence[Job]) -> None:
    names = [job.name for job in jobs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"jobs: got {twice[0]} twice, expected every name once")
    seen: set[str] = set()
    left = list(jobs)
    while left:
        for job in left:
            if unknown := set(job.needs) - set(names):
                raise ValueError(f"job {job.name}: needs {unknown.pop()}, expected one of {', '.join(names)}")
        ready = [job for job in left if seen.issuperset(job.needs)]
        if not ready:
            raise ValueError(f"jobs {', '.join(job.name for job in left)} need each other, expected one to be first")
        seen |= {job.name for job in ready}
        left = [job for job in left if job.name not in seen]
