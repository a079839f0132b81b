"""run_jobs with commands of the shell that write down when they began and ended."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rlhf_prm.jobs import Job, JobsStopped, run_jobs


@pytest.fixture
def work(tmp_path):
    """Makes jobs that note their beginning and end; ``events()`` reads the notes."""
    notes = tmp_path / "notes"
    notes.touch()

    def job(name: str, *needs: str, seconds: float = 0.0, status: int = 0, finished: bool = False) -> Job:
        script = f"echo +{name} >> {notes}; sleep {seconds}; echo -{name} >> {notes}; exit {status}"
        return Job(name, ["sh", "-c", script], needs, finished)

    job.events = lambda: notes.read_text().split()
    return job


def test_a_job_waits_for_those_it_needs_and_the_first_that_may_begin_begins(work):
    said = []
    jobs = [work("last", "early", "late"), work("late", "early"), work("early"), work("alone")]
    run_jobs(jobs, say=said.append)
    assert work.events() == ["+early", "-early", "+late", "-late", "+last", "-last", "+alone", "-alone"]
    assert len(said) == 8 and "early begins" in said[0] and "early finished after 0.0 min" in said[1]


def test_as_many_at_once_as_allowed_and_no_more(work):
    run_jobs([work(name, seconds=0.4) for name in "abc"], parallel=2, say=lambda _: None)
    events = work.events()
    assert set(events[:2]) == {"+a", "+b"}  # both run before one ends
    assert events.index("+c") > min(events.index("-a"), events.index("-b"))


def test_a_free_place_is_taken_before_the_other_job_has_ended(work):
    run_jobs([work("long", seconds=1.0), work("short"), work("after", "short")], parallel=2, say=lambda _: None)
    assert work.events().index("-after") < work.events().index("-long")


def test_what_is_finished_already_is_not_run_and_counts_as_a_need(work):
    run_jobs([work("a", finished=True), work("b", "a")], say=lambda _: None)
    assert work.events() == ["+b", "-b"]


def test_after_a_failure_nothing_begins_and_what_runs_beside_it_ends(work):
    said = []
    jobs = [work("bad", status=3), work("beside", seconds=0.5), work("next", "beside"), work("never", "bad")]
    with pytest.raises(JobsStopped, match="failed: bad; the message is above, and the same command goes on there"):
        run_jobs(jobs, parallel=2, say=said.append)
    assert "-beside" in work.events() and not {"+next", "+never"} & set(work.events())
    assert any("bad failed with status 3" in line and "beside goes on" in line for line in said)


def test_when_the_minutes_are_over_no_job_begins(work):
    jobs = [work("a", seconds=0.3), work("b", "a"), work("c")]
    with pytest.raises(JobsStopped, match=r"0 minutes spent, next is b; the same command continues there"):
        run_jobs(jobs, minutes=0.2 / 60, say=lambda _: None)
    assert work.events() == ["+a", "-a"]
    run_jobs([work("a", finished=True), *jobs[1:]], say=lambda _: None)


@pytest.mark.parametrize(
    "needs, message",
    [({"a": "b", "b": "a"}, "a, b need each other"), ({"a": "x"}, "job a: needs x, expected one of first, a")],
)
def test_needs_that_cannot_be_met_are_refused_before_anything_runs(work, needs, message):
    with pytest.raises(ValueError, match=message):
        run_jobs([work("first"), *(work(name, need) for name, need in needs.items())])
    assert work.events() == []


def test_a_name_that_stands_twice_is_refused(work):
    with pytest.raises(ValueError, match="got a twice, expected every name once"):
        run_jobs([work("a"), work("a")])


HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also when begun in the background


def test_an_interrupt_of_a_terminal_reaches_the_jobs_once(tmp_path):
    """Through the process group: a job that cleans up is not ended a second time."""
    job = tmp_path / "job.py"
    job.write_text(
        textwrap.dedent(
            f"""
            {HEARS}
            import pathlib, time
            try:
                pathlib.Path(r"{tmp_path}/began").touch()
                time.sleep(60)
            except KeyboardInterrupt:
                time.sleep(0.5)  # cleaning up
                pathlib.Path(r"{tmp_path}/cleaned").touch()
            """
        )
    )
    caller = f"{HEARS}; import sys; from rlhf_prm.jobs import *; run_jobs([Job('a', [sys.executable, r'{job}'])])"
    process = subprocess.Popen([sys.executable, "-c", caller], start_new_session=True, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (tmp_path / "began").exists():
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert (tmp_path / "cleaned").exists()


def test_an_error_in_this_process_ends_the_jobs(work):
    def say(text: str) -> None:
        if "b begins" in text:
            raise RuntimeError("the terminal is gone")

    start = time.monotonic()
    with pytest.raises(RuntimeError, match="terminal"):
        run_jobs([work("a", seconds=60), work("b")], parallel=2, say=say)
    assert time.monotonic() - start < 30 and "-a" not in work.events()


def test_a_job_that_does_not_hear_is_killed(work, monkeypatch):
    monkeypatch.setattr("rlhf_prm.jobs.GRACE", 0.3)

    def say(text: str) -> None:
        if "b begins" in text:
            time.sleep(0.3)  # the trap is set
            raise RuntimeError("the terminal is gone")

    deaf = Job("a", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="terminal"):
        run_jobs([deaf, work("b")], parallel=2, say=say)
    assert 0.9 < time.monotonic() - start < 30
