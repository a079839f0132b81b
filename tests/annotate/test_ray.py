"""Annotating and scoring on a local Ray of two workers, one of them killed in the middle: the local runner's rows."""

import json
import os
import signal
import sys
import threading
import time
from functools import partial

import pytest

from rlhf_prm.annotate.config import read_config
from rlhf_prm.annotate.pipeline import Pipeline, _shard_worker
from rlhf_prm.evaluation.score_rows import read_rollouts, scored_rows
from rlhf_prm.evaluation.score_shards import ScoreShards
from rlhf_prm.ray_shards import run_shards
from rlhf_prm.steps import StepSplitter
from tests.killed import killed

ROWS, SHARD = 60, 4


class SlowScorer:
    """Scores by length; tells its process when it is made, and takes a moment for each call."""

    def __init__(self, pids):
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")

    def score(self, problems, steps):
        time.sleep(0.2)
        return [[len(step) % 10 / 10 for step in row] for row in steps]


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cluster(monkeypatch_module, tmp_path_factory):
    """Ray of two workers; ``annotate_pids`` is where their slow generators tell their processes."""
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch_module.setenv("RAY_worker_niceness", "0")  # 15 otherwise: nothing gets done beside other work
    pids = tmp_path_factory.mktemp("pids") / "pids"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1", "ANNOTATE_PIDS": str(pids)}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": environment},
        log_to_driver=False,
    )
    ray.annotate_pids = pids
    yield ray
    ray.shutdown()


@pytest.fixture
def rollouts(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    rows = [{"problem": f"What is {i}?", "steps": [f"{i} and", "so " * (i % 7)]} for i in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kill_one(pids, shards, dead, begun=3):
    """SIGKILL the first worker once so many shards are there."""
    while len(list(shards.glob("0*.jsonl"))) < begun:
        time.sleep(0.02)
    victim = int(pids.read_text().split()[0])
    os.kill(victim, signal.SIGKILL)
    dead.append(victim)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scores_are_those_of_one_process_though_a_worker_is_killed(cluster, rollouts, tmp_path):
    read, pids, dead = partial(read_rollouts, rollouts, StepSplitter()), tmp_path / "pids", []
    shards = ScoreShards(tmp_path / "out.jsonl", read, partial(SlowScorer, pids), {"prm": "slow"}, SHARD, 2)
    threading.Thread(target=kill_one, args=(pids, shards.folder, dead), daemon=True).start()
    counted = []
    shards.run(ROWS, workers=2, gpus_per_worker=0, done=counted.append)
    alone = scored_rows(read(), SlowScorer(tmp_path / "own"), ROWS)
    assert [json.loads(line) for line in shards.output.read_text().splitlines()] == list(alone)
    assert dead and len(pids.read_text().split()) >= 3  # another worker has taken its place
    assert sum(counted) == ROWS and not shards.folder.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_shards_that_are_there_are_not_made_again(cluster, rollouts, tmp_path):
    read, pids = partial(read_rollouts, rollouts, StepSplitter()), tmp_path / "pids"
    shards = ScoreShards(tmp_path / "out.jsonl", read, partial(SlowScorer, pids), {"prm": "slow"}, SHARD, SHARD)
    shards._open()
    work = shards.work()
    assert [work(number) for number in range(1, ROWS // SHARD)] == [SHARD] * (ROWS // SHARD - 1)
    marked = shards.path(3).read_text().replace("What is", "What was")
    shards.path(3).write_text(marked)
    shards.run(ROWS, workers=2, gpus_per_worker=0, done=lambda rows: None)
    assert shards.output.read_text().count("What was") == SHARD and len(pids.read_text().split()) == 2  # the test's own
    other = ScoreShards(tmp_path / "out.jsonl", read, partial(SlowScorer, pids), {"prm": "another"}, SHARD, SHARD)
    shards._open()
    with pytest.raises(ValueError, match=r"out.jsonl.shards holds shards of another input or of other settings"):
        other.run(ROWS, workers=2, gpus_per_worker=0, done=print)


def pipeline_of(tmp_path, runner, generator="SeededGenerator"):
    """16 problems in shards of 5, to be sampled, completed and judged."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"What is {i}?", "answer": "7"}) + "\n" for i in range(16)))
    model = {"backend": f"annotate_plugin.{generator}", "template": "plain"}
    settings = {
        "problems": str(problems),
        "out": str(tmp_path / runner),
        "policies": [{"model": "one", **model}],
        "judge": {"model": "judge", **model},
        "num_responses": 3,
        "shard_size": 5,
        "verifier": "annotate_plugin.LastBoxVerifier",
        "runner": runner,
    }
    if generator == "SlowGenerator":
        settings["concurrency"] = 4  # so that a batch ends, and is written, in the middle of a shard
    return Pipeline(read_config(None, settings))


def same_files(tmp_path, whole=True):
    """Labels to the last byte; shards of the same names with the same records (``whole``: in the same order)."""
    for name in ("monte_carlo.jsonl", "judge.jsonl", "consensus.jsonl"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes() != b""
    for stage in ("sample-0", "monte_carlo", "judge"):
        files = [
            {path.name: path.read_text().splitlines() for path in (tmp_path / runner / stage).glob("0*.jsonl")}
            for runner in ("local", "ray")
        ]
        ours, theirs = files if whole else [{n: sorted(rows) for n, rows in one.items()} for one in files]
        assert ours == theirs and len(ours) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_labels_are_those_of_one_process(cluster, tmp_path):
    """Sampled, completed and judged by two workers."""
    for runner in ("local", "ray"):
        pipeline = pipeline_of(tmp_path, runner)
        for name in ("sample", "monte_carlo", "judge"):
            pipeline.run(name)
        pipeline.consensus()
    same_files(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_labels_are_those_of_one_process_though_a_worker_is_killed(cluster, tmp_path):
    """Killed while two shards are under way; another worker goes on with the shard that it was at."""
    pids, dead = cluster.annotate_pids, []
    pids.unlink(missing_ok=True)
    for runner in ("local", "ray"):
        pipeline = pipeline_of(tmp_path, runner, "SlowGenerator")
        pipeline.run("sample")
        if runner == "ray":
            pids.unlink()  # of the sampling
            shards = tmp_path / "ray" / "monte_carlo"
            threading.Thread(target=kill_one, args=(pids, shards, dead, 2), daemon=True).start()
        for name in ("monte_carlo", "judge"):
            pipeline.run(name)
            if name == "monte_carlo" and runner == "ray":
                assert dead and len(set(pids.read_text().split())) >= 3  # two, and one in place of the dead
        pipeline.consensus()
    same_files(tmp_path, whole=False)


def test_a_shard_of_labels_whose_worker_was_killed_is_finished_by_another(tmp_path, monkeypatch):
    """The workers' own code without Ray: the first is killed at its second shard, the second does what is left."""
    for runner in ("local", "ray"):
        pipeline = pipeline_of(tmp_path, runner, "SlowGenerator")
        for name in ("sample", "monte_carlo", "judge"):
            stage = pipeline.stages(name)[0]
            if runner == "local":
                pipeline.run(name)
                continue
            shards = sorted({row.number // 5 for row in pipeline.rows(stage)})
            monkeypatch.setenv("ANNOTATE_DIES_AFTER", "8")
            killed(_all_shards, pipeline.config, name, shards)
            monkeypatch.delenv("ANNOTATE_DIES_AFTER")
            left = {path.name for path in (tmp_path / "ray" / stage.name).glob("0*.jsonl")}
            assert 0 < len(left) < len(shards)
            _all_shards(pipeline.config, name, shards)
            if name != "sample":
                pipeline._write_labels(name)
        pipeline.consensus()
    same_files(tmp_path, whole=False)


def _all_shards(config, name, shards):
    work = _shard_worker(config, name, 0)
    for number in shards:
        work(number)


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers: got 0"):
        list(run_shards(lambda: int, [0], workers=0))
    problems = tmp_path / "problems.jsonl"
    problems.write_text("{}")
    with pytest.raises(ValueError, match="runner: got 'spark', expected local or ray"):
        read_config(None, {"problems": str(problems), "out": str(tmp_path), "runner": "spark"})
