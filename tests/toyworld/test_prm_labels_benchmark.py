"""The measures and the table of ``benchmarks/prm_labels.py``, by hand."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_prm.evaluation.samples import SampledProblem

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "prm_labels.py"), run_name="benchmark")
ONE = SampledProblem(
    "p",
    [["a", "b"], ["c"], ["d", "e"]],
    [True, False, True],
    ["1", "2", "1"],
    step_scores=[[0.9, 0.8], [0.7], [0.6, 0.5]],
    first_errors=[-1, 0, 1],
)


def test_auroc_within_groups_compares_the_answers_to_one_problem_only():
    group_auroc = BENCHMARK["group_auroc"]
    assert group_auroc([ONE]) == 0.5  # .8 beats .7, .5 does not
    all_right = replace(ONE, correct=[True] * 3, step_scores=[[0.1], [0.1], [0.1]])
    assert group_auroc([ONE, all_right]) == 0.5  # no pairs there
    tied = replace(ONE, step_scores=[[0.7], [0.7], [0.7]])
    assert group_auroc([tied]) == 0.5
    assert group_auroc([replace(ONE, step_scores=[[0.9], [0.7], [0.8]])]) == 1.0


def test_exact_labels_find_every_first_error():
    (scores,) = BENCHMARK["exact_scores"]([ONE])
    assert scores == [[1.0, 1.0], [0.0], [1.0, 0.0]]
    got = BENCHMARK["quality"]([replace(ONE, step_scores=scores)])
    assert got["f1"] == got["auroc"] == 1.0
    assert got["group_auroc"] == pytest.approx(0.75)  # a right answer by a wrong process ties with the wrong one


def test_the_table_has_means_over_builds_and_the_distance_to_gold():
    row = dict.fromkeys(BENCHMARK["COLUMNS"], 0.25)
    rows = {"long/10/mc": row | {"f1": 0.5}, "long/11/mc": row | {"f1": 0.3}, "long/10/gold": row | {"f1": 0.8}}
    lines = BENCHMARK["table"](rows).splitlines()
    assert len(lines) == 4
    mc, gold = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])
    assert mc[:3] == ["long", "mc", "10, 11"] and mc[5] == "0.400" and mc[-1] == "-0.300"
    assert gold[:3] == ["long", "gold", "10"] and gold[-1] == "0.000"
