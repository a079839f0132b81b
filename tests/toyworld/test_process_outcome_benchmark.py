"""The tables of ``benchmarks/process_outcome.py``, on made-up results and on a tiny world."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import outcome_probes
import process_outcome
import process_outcome_page as tables

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.step_data import StepLabels

NUMBERS = dict.fromkeys([*tables.COLUMNS, *tables.POLICY.values()], 0.25)


def results(**f1: float) -> tables.Results:
    """Two builds; the second is .1 lower, but for gold."""
    rows = {}
    for build in (1, 2):
        for source, value in f1.items():
            source = source.replace("_", " ")
            shift = -0.1 * (build - 1) * (source != "gold")
            rows[build, source] = {**NUMBERS, "f1": value + shift, "product": 1 - value - shift}
    return rows


def test_orderings_are_counted_build_by_build():
    made_up = results(mc_hard=0.5, consensus_hard=0.45, gold=0.45)
    lines = tables.orderings_table(made_up).splitlines()
    by_sources = {line.split("|")[2].strip(): line for line in lines if line.startswith("| F1 |")}
    assert "| 0 of 2 | −0.050 (−0.050 to −0.050) |" in by_sources["mc hard < consensus hard"]
    assert "| 1 of 2 |" in by_sources["consensus hard < gold"]  # equal in build 1, above in build 2


def test_the_inverse_trend_and_the_threshold_curve():
    made_up = results(mc_hard=0.1, consensus_hard=0.2, judge=0.3, gold=0.5)
    assert tables.trend([made_up[1, source] for source in tables.LADDER]) == -1.0
    assert "below 0 in 2 of 2 | −1.000 ± 0.000 | too few builds | −1" in tables.orderings_table(made_up)
    curve = results(mc_hard=0.5) | {
        (build, f"mc hard >{k / 8:g}"): {**NUMBERS, "f1": 0.5 - k / 100, "product": 0.5}
        for build in (1, 2)
        for k in range(1, 8)
    }
    lines = tables.thresholds_table(curve).splitlines()
    assert lines[2].startswith("| F1, falls at 6 of 7 | 0.450 | 0.490 |") and lines[3].startswith(
        "| the same in the paper | 40.2 |"
    )
    assert tables.thresholds_table(results(mc_hard=0.5)) == ""  # no build has all thresholds


def test_the_page_says_what_has_not_run():
    assert "No build is complete yet." in tables.page({})
    sources = {name.replace(" ", "_"): 0.4 for name in tables.SOURCES}
    told = tables.page(results(**sources))
    assert (
        "Builds 1, 2. **Fewer than five builds" in told and "| consensus soft | 0.250 ± 0.000 | 0.350 ± 0.050 |" in told
    )


def test_the_build_that_was_tuned_on_is_in_no_mean():
    made_up = results(gold=0.5)
    assert tables.complete(made_up | {(tables.TUNING, "gold"): NUMBERS}, ["gold"]) == [1, 2]


def test_an_ordering_appears_where_its_interval_says_so():
    gaps = [0.1, 0.2, 0.1, 0.2, 0.1]  # mean .14, standard error .0245, t(.975; 4) 2.776: .072 to .208
    assert tables.appears(gaps) == "**yes**" and tables.appears([-gap for gap in gaps]) == "**reversed**"
    assert tables.appears([*gaps[:-1], -0.4]) == "not decided" and tables.appears(gaps[:4]) == "too few builds"


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        (["7 Add 3 = 0", "0 Times 4 = 0", "Answer: \\boxed{0}"], set()),
        (["7 Add 3 = 1", "1 Times 4 = 4", "Answer: \\boxed{4}"], {"fact"}),
        (["7 Add 3 = 0", "0 Times 5 = 0", "Answer: \\boxed{0}"], {"copy"}),
        (["7 Add 3 = 0", "Answer: \\boxed{0}"], {"length"}),
        (["7 Add 3 = 0", "1 Times 4 = 4", "Answer: \\boxed{4}"], {"form"}),  # the digit is not carried on
        (["7 Add 3 = 0", "0 Times 4 = 0", "Answer: \\boxed{5}"], {"form"}),
        (["7 Add 3 = 0", "0 Times 4 = 0"], {"form"}),
        (["well, 7 Add 3 = 0"], {"form"}),
    ],
)
def test_kinds_of_error(steps, kinds):
    assert outcome_probes.kinds_of_error("Left to right, mod 10: 7 Add 3 Times 4\n\n", steps) == kinds


def test_kinds_are_told_apart_by_the_score_that_is_asked_for():
    chain, shorter = ["7 Add 3 = 0", "0 Times 4 = 0", "Answer: \\boxed{0}"], ["7 Add 3 = 0", "Answer: \\boxed{0}"]
    wrong = ["7 Add 3 = 1", "1 Times 4 = 4", "Answer: \\boxed{4}"]
    one = SampledProblem(
        "Left to right, mod 10: 7 Add 3 Times 4\n\n",
        [chain, shorter, wrong],
        [True, False, False],
        ["0", "0", "4"],
        step_scores=[[0.9, 0.1, 0.5], [0.9, 0.2], [0.1, 0.1, 0.7]],
    )
    assert outcome_probes.told_apart([one], outcome_probes.last) == {"length": 1.0, "fact": 0.0, "copy": None}
    assert outcome_probes.told_apart([one], min) == {"length": 0.0, "fact": 0.5, "copy": None}


def test_measures_by_hand():
    """Two right answers, one by a wrong process whose error is named; the minimum is at the last step in one of two."""
    one = SampledProblem(
        "p",
        [["a", "b"], ["c", "d"]] * 4,
        [True, True] * 4,
        ["1", "1"] * 4,
        step_scores=[[0.9, 0.8], [0.1, 0.9]] * 4,
        first_errors=[-1, 0] * 4,
    )
    got = process_outcome.measured([one])
    assert (got["wrong_process"], got["wrong_process_found"], got["minimum_at_last"]) == (4, 1.0, 0.5)
    assert got["f1"] == 1.0 and got["last_minus"] == 0.0 and got["pass"] == 1.0


def test_the_threshold_is_chosen_on_other_problems():
    one = SampledProblem(
        "p", [["a"], ["b"]], [True, False], ["1", "2"], step_scores=[[0.9], [0.7]], first_errors=[-1, 0]
    )
    other = replace(one, step_scores=[[0.75], [0.6]])
    assert process_outcome.tuned_f1([one], [other]) == {"threshold": pytest.approx(0.8), "f1_tuned": 0.0}
    assert process_outcome.tuned_f1([other], [one])["f1_tuned"] == 0.0  # .675: its .7 passes
    assert process_outcome.tuned_f1([one], [one])["f1_tuned"] == 1.0


def test_label_facts_by_hand(monkeypatch):
    exact = [StepLabels([True, True], [1.0, 1.0], "gold"), StepLabels([False], [0.0], "gold")]
    monkeypatch.setattr(process_outcome.labels, "gold_labels", lambda rows: exact)
    given = [StepLabels([True, False], [1.0, 0.0], "mc"), exact[1]]
    facts = process_outcome.label_facts([{}, {}], given)
    assert facts == {"rows": 2, "label_accuracy": 0.5, "label_error_accuracy": 1.0, "label_correct_accuracy": 0.0}


def test_the_second_outcome_model_has_the_same_solutions_and_more(small_world, monkeypatch):
    few = small_world.settings.labelled_solutions
    monkeypatch.setattr(process_outcome, "MORE", few + 5)
    process_outcome.more_solutions.cache_clear()
    solutions, given = process_outcome.labelled(small_world, "outcome 16k")
    process_outcome.more_solutions.cache_clear()
    assert len(solutions) == len(given) == few + 5
    first = process_outcome.labelled(small_world, "outcome")[0]
    assert [row["prompt"] for row in solutions[:few]] == [row["prompt"] for row in first]


@pytest.mark.parametrize("source", [*sorted({*process_outcome.SOURCES} - {"outcome 16k"}), "mc hard >0.5"])
def test_every_source_labels_the_same_solutions(small_world, source):
    solutions, given = process_outcome.labelled(small_world, source)
    assert len(solutions) == len(given) == small_world.settings.labelled_solutions
    if source == "mc hard >0.5":
        soft = process_outcome.labelled(small_world, "mc soft")[1]
        assert [one.labels for one in given] != [one.labels for one in soft]
        assert all(set(one.soft_labels) <= {0.0, 1.0} for one in given)
