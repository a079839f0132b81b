"""SIGKILL at 20 random moments, then finish: the same files as an uninterrupted run, and no written call made again."""

import json
import os
import random
import signal
import time

import pytest
from annotate_server import Server

from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.generation.requests import unit_seed

KILLS = 20
PROBLEMS = 16


def config(out, problems, **settings):
    return read_config(
        None,
        {
            "problems": str(problems),
            "out": str(out),
            "num_responses": 3,
            "shard_size": 5,
            "concurrency": 4,
            "votes": 2,
            "verifier": "annotate_plugin.LastBoxVerifier",
            **settings,
        },
    )


def plugged(out, problems):
    model = {"backend": "annotate_plugin.SeededGenerator", "template": "plain"}
    policies = [{"model": "one", **model}, {"model": "two", **model}]
    return config(out, problems, policies=policies, judge={"model": "judge", **model})


def over_http(out, problems, url):
    model = {"endpoints": [url], "template": "plain", "options": {"first_wait": 0.01}}
    return config(out, problems, policies=[{"model": "one", **model}], judge={"model": "judge", **model})


def everything(settings):
    pipeline = Pipeline(settings)
    for name in ("sample", "monte_carlo", "judge"):
        pipeline.run(name)
    pipeline.consensus()


@pytest.fixture
def problems(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    path = tmp_path / "problems.jsonl"
    lines = [json.dumps({"problem": f"What is {i}?", "answer": "7"}) for i in range(PROBLEMS)]
    path.write_text("\n".join([*lines[:7], "not json", *lines[7:]]))
    return path


def in_child(function, *args):
    """Start ``function(*args)`` in a forked process; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            function(*args)
            status = 0
        finally:
            os._exit(status)
    return pid


def written_seeds(out):
    """The seeds of the calls whose results are in the shards."""
    seeds = set()
    for path in out.glob("*/0*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            if "responses" in record:
                seeds.add(unit_seed(0, "sample", record["id"]))
            elif "hits" in record:
                seeds.add(unit_seed(0, "monte_carlo", record["id"], record["step"]))
            else:
                seeds |= {unit_seed(0, "judge", record["id"], record["vote"], a) for a in range(record["attempts"])}
    return seeds


def results(out):
    """Everything that was written: label files as they are, records and rejections in any order."""
    files = {path.name: path.read_text() for path in out.glob("*.json*")}
    for path in out.glob("*/*.jsonl"):
        lines = path.read_text().splitlines()
        assert len(lines) == len(set(lines))
        files[str(path.relative_to(out))] = sorted(lines)
    return files


def kill_and_finish(settings, calls, total, seed):
    """Run with 20 kills, then to the end; checks after each kill that no written call was made again.

    Each kill comes at a random moment after a random number of calls, so that the 20 spread over all the work.
    """
    rng = random.Random(seed)
    out = Pipeline(settings).out
    progress = []
    for kill in range(KILLS + 1):
        written, before = written_seeds(out), len(calls())
        progress.append(len(written))
        pid = in_child(everything, settings)
        if kill < KILLS:
            wanted = before + rng.randrange(2 * total // (KILLS + 4))
            while len(calls()) < wanted and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.01))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert not written & set(calls()[before:])
        if kill < KILLS:
            assert os.WIFSIGNALED(status), "it finished before it could be killed 20 times"
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(set(progress)) > KILLS // 2 and progress[-1] > total // 2


def test_twenty_kills_in_process(tmp_path, problems, monkeypatch):
    calls = tmp_path / "calls"
    monkeypatch.setenv("ANNOTATE_CALLS", str(calls))
    everything(plugged(tmp_path / "whole", problems))
    total = len(calls.read_text().splitlines())
    calls.write_text("")
    kill_and_finish(plugged(tmp_path / "killed", problems), lambda: calls.read_text().split("\n")[:-1], total, seed=1)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_twenty_kills_over_http(tmp_path, problems):
    with Server(latency=0.005) as server:
        everything(over_http(tmp_path / "whole", problems, server.url))
        total = len(server.seeds)
        server.seeds.clear()
        kill_and_finish(over_http(tmp_path / "killed", problems, server.url), lambda: list(server.seeds), total, seed=2)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
