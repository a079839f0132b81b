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
from rlhf_prm.annotate.pipeline import Pipeline
from rlhf_prm.evaluation.score_rows import read_rollouts, scored_rows
from rlhf_prm.evaluation.score_shards import ScoreShards
from rlhf_prm.ray_shards import run_shards
from rlhf_prm.steps import StepSplitter

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
def cluster(monkeypatch_module):
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch_module.setenv("RAY_worker_niceness", "0")  # 15 otherwise: nothing gets done beside other work
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TQDM_DISABLE": "1"}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": environment},
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


@pytest.fixture
def rollouts(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    rows = [{"problem": f"What is {i}?", "steps": [f"{i} and", "so " * (i % 7)]} for i in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def kill_one(pids, shards, killed):
    """SIGKILL the first worker once three shards are done."""
    while len(list(shards.glob("0*.jsonl"))) < 3:
        time.sleep(0.05)
    victim = int(pids.read_text().split()[0])
    os.kill(victim, signal.SIGKILL)
    killed.append(victim)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scores_are_those_of_one_process_though_a_worker_is_killed(cluster, rollouts, tmp_path):
    read, pids, killed = partial(read_rollouts, rollouts, StepSplitter()), tmp_path / "pids", []
    shards = ScoreShards(tmp_path / "out.jsonl", read, partial(SlowScorer, pids), {"prm": "slow"}, SHARD, 2)
    threading.Thread(target=kill_one, args=(pids, shards.folder, killed), daemon=True).start()
    counted = []
    shards.run(ROWS, workers=2, gpus_per_worker=0, done=counted.append)
    alone = scored_rows(read(), SlowScorer(tmp_path / "own"), ROWS)
    assert [json.loads(line) for line in shards.output.read_text().splitlines()] == list(alone)
    assert killed and len(pids.read_text().split()) >= 3  # another worker has taken its place
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_labels_are_those_of_one_process(cluster, tmp_path):
    """Sampled, completed and judged by two workers; the files of labels are the same to the last byte."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"What is {i}?", "answer": "7"}) + "\n" for i in range(16)))
    model = {"backend": "annotate_plugin.SeededGenerator", "template": "plain"}
    for runner in ("local", "ray"):
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
        pipeline = Pipeline(read_config(None, settings))
        for name in ("sample", "monte_carlo", "judge"):
            pipeline.run(name)
        pipeline.consensus()
    for name in ("monte_carlo.jsonl", "judge.jsonl", "consensus.jsonl"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    for folder in ("sample-0", "monte_carlo", "judge"):
        names = [sorted(p.name for p in (tmp_path / runner / folder).glob("0*.jsonl")) for runner in ("local", "ray")]
        assert names[0] == names[1] != []


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers: got 0"):
        list(run_shards(lambda: int, [0], workers=0))
    problems = tmp_path / "problems.jsonl"
    problems.write_text("{}")
    with pytest.raises(ValueError, match="runner: got 'spark', expected local or ray"):
        read_config(None, {"problems": str(problems), "out": str(tmp_path), "runner": "spark"})
