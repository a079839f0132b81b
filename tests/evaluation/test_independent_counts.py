"""MR-Ben and PRMBench from their raw rows, by loops that share nothing with the package's own."""

import json
import math

import pytest

from rlhf_prm.evaluation.mr_ben import load_mr_ben, mr_ben
from rlhf_prm.evaluation.prmbench import load_prmbench, prmbench
from tests.evaluation.fakes import RuleScorer

SAYS_WRONG = lambda step: len(step) % 7 <= 1  # noqa: E731 - a scorer that follows from the text
SCORER = RuleScorer(lambda problem, before, step: (len(step) % 7) / 7)
THRESHOLD = 0.15


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def test_mr_ben(shared_data):
    path = shared_data / "mrben_math.jsonl"
    results = mr_ben(SCORER, load_mr_ben(path), THRESHOLD)
    both_right = both_wrong = missed = alarmed = hits = 0
    for row in rows_of(path):
        said = next((k for k, step in enumerate(row["Model_Solution_Steps"], 1) if SAYS_WRONG(step)), None)
        if row["Model_Solution_Correctness"].strip().lower() == "correct":
            both_right, alarmed = both_right + (said is None), alarmed + (said is not None)
        else:
            both_wrong, missed = both_wrong + (said is not None), missed + (said is None)
            hits += said == int(row["Model_Solution_First_Error_Step"])
    root = math.sqrt(
        (both_right + missed) * (both_right + alarmed) * (both_wrong + missed) * (both_wrong + alarmed)
    )  # called correct, correct, incorrect, called incorrect
    mcc = (both_right * both_wrong - missed * alarmed) / root
    assert results["all"]["mcc"] == pytest.approx(mcc)
    assert results["all"]["acc_step"] == pytest.approx(hits / (both_wrong + missed))
    assert results["all"]["mr_score_without_reason"] == pytest.approx(
        0.2 * max(0, mcc) + 0.3 * hits / (both_wrong + missed)
    )


def test_prmbench(shared_data):
    path = shared_data / "prmbench_subset_394.jsonl"
    results = prmbench(SCORER, load_prmbench(path), THRESHOLD)
    counts: dict[str, list[int]] = {}
    for row in rows_of(path):
        for name in (row["classification"], "all"):
            count = counts.setdefault(name, [0, 0, 0, 0])  # kept, found, missed, false alarms
            for number, step in enumerate(row["modified_process"], 1):
                planted, said = number in row["error_steps"], SAYS_WRONG(step)
                count[2 * (planted != said) + (said if planted == said else not planted)] += 1
    assert set(counts) == set(results)
    for name, (kept, found, missed, alarms) in counts.items():
        right, wrong = (2 * hit / (2 * hit + missed + alarms) if hit else 0.0 for hit in (kept, found))
        expected = {"f1_right": right, "f1_wrong": wrong, "accuracy": (kept + found) / (kept + found + missed + alarms)}
        expected["prm_score"] = (right + wrong) / 2 if found + missed else right
        assert {key: results[name][key] for key in expected} == pytest.approx(expected), name
