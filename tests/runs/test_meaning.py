"""What the end of a run says in words, by hand: 2,048 problems, so a standard error of about .0156 around one half."""

import pytest

from rlhf_prm.runs.folder import result_table
from rlhf_prm.runs.meaning import meaning


def run(accuracy, method="trusted", **more):
    arrow = {"before": 0.3, "after": accuracy}
    return {"method": method, "accuracy": arrow, "process_accuracy": arrow, **more}


def told(own, plain, top=None, problems=2048):
    summary = run(own, baseline=run(plain, "outcome"), eval_problems=problems)
    return meaning(summary | ({} if top is None else {"ceiling": run(top)}))


@pytest.mark.parametrize(
    ("own", "plain", "words"),
    [
        (0.60, 0.50, "The process reward helped: accuracy ended 0.100 above outcome-only."),
        (0.50, 0.60, "The process reward did harm: accuracy ended 0.100 below outcome-only."),
        (0.53, 0.50, "The process reward made no difference that can be seen: +0.030 (standard error 0.016)."),
    ],
)
def test_a_difference_counts_above_two_standard_errors(own, plain, words):
    assert told(own, plain)[0] == words


@pytest.mark.parametrize(
    ("own", "top", "words"),
    [
        (0.60, 0.70, "Exact step labels bring 0.200: 0.100 of it is lost to the errors of the PRM."),
        (0.50, 0.51, "Nor was there anything to gain: exact step labels end at +0.010."),
        (0.75, 0.70, "Exact step labels bring 0.200: a better PRM would not help this method further."),
    ],
)
def test_the_ceiling_tells_a_bad_prm_from_nothing_to_gain(own, top, words):
    assert told(own, 0.5, top)[1] == words


def test_nothing_is_said_without_outcome_only_beside_it():
    assert meaning(run(0.6, baseline=None, eval_problems=2048)) == []
    assert meaning(run(0.6, baseline=run(0.5, "immediate"), eval_problems=2048)) == []
    assert told(0.6, 0.5, problems=0) == []
    assert told(None, 0.5) == []


def test_the_table_has_a_row_for_each():
    summary = run(0.6, baseline=run(0.5, "outcome"), ceiling=run(0.7), seconds={"policy": 2.0})
    lines = result_table(summary).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "method", "trusted", "outcome (baseline)", "trusted (ceiling)", "time: policy 2 s",
    ]  # fmt: skip
    assert "0.300 → 0.700" in lines[3]


@pytest.mark.parametrize(
    ("settings", "page"), [({}, "docs/dense_rewards.md"), ({"turn_scores": "environment"}, "docs/turns.md")]
)
def test_where_several_builds_are_shown(settings, page):
    summary = run(0.6, baseline=run(0.5, "outcome"), eval_problems=2048, settings=settings)
    assert meaning(summary)[-1] == f"This is one build and one seed: {page} has several."
