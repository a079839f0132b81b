"""The default world at full size: the laboratory's own measurements hold."""

import time

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.files import read_json_lines
from rlhf_prm.prm import load_prm
from rlhf_prm.statistics import first_error, predicted_first_error
from rlhf_prm.toyworld import ToyWorldSettings, build_world
from rlhf_prm.toyworld.checker import step_labels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def by_source(tmp_path_factory):
    root = tmp_path_factory.mktemp("worlds")
    start = time.process_time()
    worlds = {"consensus": build_world(ToyWorldSettings(seed=0), root)}
    assert time.process_time() - start < 180
    kept = len(labelled(worlds["consensus"]))
    for source in ("mc", "gold"):
        worlds[source] = build_world(ToyWorldSettings(seed=0, label_source=source, prm_rows=kept), root)
    return worlds


def labelled(world):
    return read_json_lines(world.stages["labels"].path / "rows.jsonl")


def label_accuracy(world):
    rows = labelled(world)
    gold = [first_error(step_labels(row["prompt"], row["completions"])) for row in rows]
    return sum(first_error(row["labels"]) == error for row, error in zip(rows, gold, strict=True)) / len(rows)


def first_error_f1(world):
    rows = world.held_out_solutions(800)
    scores = load_prm(str(world.prm_path)).score([r["prompt"] for r in rows], [r["completions"] for r in rows])
    predictions = [predicted_first_error(one) for one in scores]
    return processbench_metrics(predictions, [first_error(row["labels"]) for row in rows])["f1"]


def test_the_policy_starts_imperfect_and_sometimes_right_by_a_wrong_process(by_source):
    world = by_source["consensus"]
    policy = AutoModelForCausalLM.from_pretrained(world.policy_path)
    scores = world.evaluate(policy, AutoTokenizer.from_pretrained(world.policy_path))
    assert 0.24 < scores["accuracy"] < 0.40
    assert 0.05 < scores["accuracy"] - scores["process_accuracy"] < 0.12


def test_consensus_is_cleaner_than_monte_carlo_and_its_prm_better(by_source):
    assert label_accuracy(by_source["mc"]) < 0.70 < 0.88 < label_accuracy(by_source["consensus"])
    assert 0.3 < len(labelled(by_source["consensus"])) / 4000 < 0.6
    f1 = {source: first_error_f1(world) for source, world in by_source.items()}
    assert f1["mc"] + 0.1 < f1["consensus"] < f1["gold"]
