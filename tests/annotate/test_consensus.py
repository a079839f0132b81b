"""Consensus filtering on hand-worked pairs."""

from rlhf_prm.annotate import Rejection, consensus
from rlhf_prm.step_data import StepLabels, labels_from_first_error


def mc(*soft):
    return StepLabels([rate > 0 for rate in soft], list(soft), "monte_carlo")


def verdict(first_error, num_steps=3):
    return labels_from_first_error(first_error, num_steps, "judge")


PAIRS = [
    (mc(1.0, 0.5, 1.0), verdict(-1)),  # kept: both none
    (mc(1.0, 0.0), verdict(1)),  # kept: both step 1
    (mc(1.0, 0.0), verdict(2)),
    (mc(1.0, 0.5, 0.0), verdict(0)),
    (mc(1.0, 0.5, 1.0), verdict(2)),
    (mc(0.0), verdict(-1)),
    (Rejection("verifier: bad_gold"), verdict(-1)),
    (mc(1.0, 0.0, 0.5), verdict(1)),  # kept; Monte-Carlo went on, the judge stopped
]


def test_kept_dropped_and_why():
    results, report = consensus([a for a, _ in PAIRS], [b for _, b in PAIRS])
    kept = [r for r in results if isinstance(r, StepLabels)]
    assert [k.labels for k in kept] == [[True] * 3, [True, False], [True, False]]
    assert kept[0].soft_labels == [1.0, 0.5, 1.0] and kept[0].source == "consensus"
    assert report.kept_share == 3 / 8
    assert report.dropped == {
        "monte_carlo finds an error earlier": 1,
        "the judge finds an error earlier": 1,
        "only the judge finds an error": 1,
        "only monte_carlo finds an error": 1,
        "no monte_carlo label": 1,
    }
    assert report.matrix == {(-1, -1): 1, (1, 1): 2, (1, 2): 1, (2, 0): 1, (-1, 2): 1, (0, -1): 1}
    assert report.positions == {0: [3, 0], 1: [1, 2], 2: [1, 0]}


def test_report_reads():
    _, report = consensus([a for a, _ in PAIRS], [b for _, b in PAIRS])
    text = report.as_text()
    assert "kept 3 of 8 solutions (37.5%)" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["none", "1", "0", "0", "1"] in rows and ["2", "0", "0", "2", "1"] in rows
    assert report.as_dict()["agreement_matrix"][0] == [-1, -1, 1]
    assert sum(n for *_, n in report.as_dict()["agreement_matrix"]) == 7


def test_far_errors_share_a_column():
    _, report = consensus([verdict(11, 20), verdict(15, 20)], [verdict(11, 20), verdict(9, 20)])
    assert [">8", "2"] in [line.split() for line in report.as_text().splitlines()]
