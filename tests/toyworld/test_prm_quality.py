"""The measures of ``benchmarks/prm_quality.py``, by hand."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_prm.evaluation.samples import SampledProblem

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "prm_quality.py"), run_name="benchmark")
ONE = SampledProblem(
    "p",
    [["a", "b"], ["c"], ["d", "e"]],
    [True, False, True],
    ["1", "2", "1"],
    step_scores=[[0.9, 0.8], [0.7], [0.6, 0.75]],
    first_errors=[-1, 0, 1],
)


def test_auroc_within_groups_compares_the_answers_to_one_problem_only():
    found = BENCHMARK["quality"]([ONE])
    assert found["group_auroc"] == 0.5  # .8 beats .7, .6 does not
    assert found["last_auroc"] == 1.0  # .8 and .75 beat .7
    all_right = replace(ONE, correct=[True] * 3, step_scores=[[0.1], [0.1], [0.1]])
    assert BENCHMARK["quality"]([ONE, all_right])["group_auroc"] == 0.5  # no pairs there
    tied = replace(ONE, step_scores=[[0.7], [0.7], [0.7]])
    assert BENCHMARK["quality"]([tied])["last_auroc"] == 0.5


def test_the_threshold_decides_the_first_error():
    # at .5 nothing is wrong: 0 of 2 errors, 1 of 1 right ones; at .7 the second is found
    assert BENCHMARK["quality"]([ONE])["f1"] == 0.0
    at_seven = BENCHMARK["quality"]([ONE], 0.7)
    assert (at_seven["error_accuracy"], at_seven["correct_accuracy"]) == (0.5, 1.0)


def test_exact_labels_find_every_first_error():
    (scores,) = BENCHMARK["exact_scores"]([ONE])
    assert scores == [[1.0, 1.0], [0.0], [1.0, 0.0]]
    got = BENCHMARK["quality"]([replace(ONE, step_scores=scores)])
    assert got["f1"] == got["auroc"] == 1.0
    assert got["group_auroc"] == pytest.approx(0.75)  # a right answer by a wrong process ties with the wrong one
