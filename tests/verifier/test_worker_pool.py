"""Faults: whatever happens to a worker costs one item; whatever happens to the trainer leaves no process behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from reward.verifier import GIB, MathVerifier, default_workers
from reward.verifier.pool import PoolSettings, WorkerPool


@pytest.fixture
def pool():
    pool = WorkerPool(2, PoolSettings("misbehaving:task", deadline=0.5, memory_limit=GIB))
    yield pool
    pool.close()


def results(futures):
    return [future.result(timeout=60) for future in futures]


def workers_of(pool):
    return psutil.Process(pool._nursery.process.pid).children()


def left_after(seconds, processes):
    """The processes that still run after some seconds. A zombie is dead: nobody has asked for its exit status yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        processes = [process for process in processes if runs(process)]
        if not processes:
            break
        time.sleep(0.02)
    return processes


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("hang", "timeout"),
        ("hang in C", "timeout"),
        ("exit", "died"),
        ("killed", "died"),
        ("memory", "died"),
        ("raise", "error"),
        ("recurse", "error"),
    ],
)
def test_a_fault_costs_one_item(pool, fault, state):
    futures = [pool.submit(text) for text in ["a", fault, *"bcdefgh", fault, "i"]]
    outcomes = results(futures)
    assert [outcome.state for outcome in outcomes] == ["done", state, *["done"] * 7, state, "done"]
    assert [outcome.value for outcome in outcomes if outcome.state == "done"] == list("ABCDEFGHI")


def test_a_hung_item_takes_its_deadline_and_not_more(pool):
    results([pool.submit("warm")])
    start = time.perf_counter()
    assert [outcome.state for outcome in results([pool.submit("hang") for _ in range(6)])] == ["timeout"] * 6
    assert time.perf_counter() - start < 0.5 * 6 / 2 + 5


def test_kill_9_of_a_worker_in_mid_batch(pool):
    results([pool.submit("warm")])
    futures = [pool.submit("slow") for _ in range(60)]
    futures[5].result(timeout=60)
    for worker in workers_of(pool):
        worker.kill()
    assert [outcome.value for outcome in results(futures)] == ["SLOW"] * 60  # tried again on a fresh worker
    assert len(workers_of(pool)) == 2


def test_kill_9_of_the_nursery_in_mid_batch(pool):
    results([pool.submit("warm")])
    futures = [pool.submit("slow") for _ in range(40)]
    futures[5].result(timeout=60)
    pool._nursery.process.kill()
    assert [outcome.value for outcome in results(futures)] == ["SLOW"] * 40


def test_a_worker_that_cannot_start_is_an_error_and_not_a_hang():
    pool = WorkerPool(1, PoolSettings("no_such_module:task", deadline=1.0, memory_limit=GIB))
    with pytest.raises(RuntimeError, match="does not start"):
        pool.submit("a").result(timeout=60)
    pool.close()


def test_closing_ends_the_processes_and_what_waits(pool):
    results([pool.submit("warm")])
    processes = [psutil.Process(pool._nursery.process.pid), *workers_of(pool)]
    waiting = [pool.submit("hang") for _ in range(6)]
    pool.close()
    assert left_after(5, processes) == []
    for future in waiting:
        with contextlib.suppress(RuntimeError):
            assert future.result(timeout=10).state == "died"


SCRIPT = """
import sys, threading, time
from reward import MathVerifier
verifier = MathVerifier(workers=2)
assert verifier.verify([r"\\boxed{\\frac12}"], ["0.5"])[0].status == "correct"
pending = verifier.submit([r"\\boxed{\\prod_{n=2}^{\\infty}(1+\\frac{1}{n^2})}"], ["2"])  # seconds of sympy
import psutil
print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
{ending}
"""


def run_until_ready(ending, **options):
    """A trainer without a ``__main__`` guard, fed through stdin as a notebook's kernel is; with its children's ids."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-"], **pipes, text=True, **options)
    process.stdin.write(SCRIPT.replace("{ending}", ending))
    process.stdin.close()
    pids, children = process.stdout.readline().split(), []
    assert len(pids) == 3  # the nursery and two workers
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # gone as fast as it should
            children.append(psutil.Process(int(pid)))
    return process, children


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_two_seconds_after_the_trainer_is_killed(signal_):
    process, children = run_until_ready("time.sleep(60)")
    process.send_signal(signal_)
    process.wait(timeout=10)
    assert left_after(2, children) == []


def hear_interrupts():
    """In a child: a process started in the background ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("parent", [signal.SIG_DFL, signal.SIG_IGN])
def test_ctrl_c_ends_everything(parent):
    before = signal.signal(signal.SIGINT, parent)
    try:
        process, children = run_until_ready("pending.result()", start_new_session=True, preexec_fn=hear_interrupts)
    finally:
        signal.signal(signal.SIGINT, before)
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to the whole group
    assert process.wait(timeout=10) != 0
    assert "KeyboardInterrupt" in process.stderr.read()
    assert left_after(2, children) == []


def test_a_normal_exit_does_not_wait_for_what_is_left():
    process, children = run_until_ready("")
    assert process.wait(timeout=5) == 0
    assert left_after(2, children) == []


def test_a_forked_child_is_told_to_make_its_own():
    with MathVerifier(workers=1) as verifier:
        child = os.fork()
        if child == 0:
            try:
                verifier.verify([r"\boxed{1}"], ["1"])
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


BIG = """
import mmap, time, psutil
held = mmap.mmap(-1, {gigabytes} * 2**30)
for page in range(0, len(held), 4096):
    held[page] = 1
resident = psutil.Process().memory_info().rss
start = time.perf_counter()
from reward import MathVerifier
with MathVerifier(workers=2) as verifier:
    assert verifier.verify([r"\\boxed{\\frac12}"], ["0.5"])[0].status == "correct"
    seconds = time.perf_counter() - start
    children = [child.memory_info().rss for child in psutil.Process().children(recursive=True)]
print(resident, seconds, *children)
"""


@pytest.mark.parametrize("gigabytes", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_workers_do_not_copy_a_big_trainer(gigabytes):
    if psutil.virtual_memory().available < (gigabytes + 2) * GIB:
        pytest.skip(f"needs {gigabytes + 2} GiB of free memory")
    code = BIG.replace("{gigabytes}", str(gigabytes))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    resident, seconds, *children = map(float, done.stdout.split())
    assert resident > gigabytes * GIB
    assert len(children) in (2, 3)  # the nursery, the worker that answered, the other where it is up already
    assert max(children) < 0.25 * GIB and seconds < 20


@pytest.mark.parametrize(("ranks", "workers"), [("1", 4), ("2", 2), ("4", 1), ("8", 1)])
def test_ranks_share_the_cores(monkeypatch, ranks, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert default_workers() == workers
