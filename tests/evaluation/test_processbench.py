"""ProcessBench's metric against a reference written from its definition, and the real files as a floor."""

import random

import pytest

from rlhf_prm.evaluation.processbench import (
    ProcessBenchItem,
    best_threshold,
    load_processbench,
    processbench,
    processbench_metrics,
)


def reference(predictions: list[int], labels: list[int]) -> tuple[float, float, float]:
    """a = hit first errors / erroneous samples, b = predictions −1 / correct samples, F1 = 2ab/(a+b)."""
    erroneous = hits = correct = accepted = 0
    for prediction, label in zip(predictions, labels, strict=True):
        if label == -1:
            correct += 1
            accepted += prediction == -1
        else:
            erroneous += 1
            hits += prediction == label
    a = 0.0 if erroneous == 0 else hits / erroneous
    b = 0.0 if correct == 0 else accepted / correct
    return a, b, 0.0 if a + b == 0 else 2 * a * b / (a + b)


def test_metrics_equal_the_definition_on_1000_random_sets():
    generator = random.Random(0)
    for _ in range(1000):
        size, longest = generator.randint(0, 30), generator.randint(0, 6)
        labels = [generator.randint(-1, longest) for _ in range(size)]
        predictions = [label if generator.random() < 0.5 else generator.randint(-1, longest) for label in labels]
        got = processbench_metrics(predictions, labels)
        assert (got["error_accuracy"], got["correct_accuracy"], got["f1"]) == pytest.approx(
            reference(predictions, labels), abs=1e-12
        )


def test_metrics_by_hand():
    # two erroneous (one hit), three correct (two accepted): a = 1/2, b = 2/3, F1 = 2·(1/3)/(7/6) = 4/7
    got = processbench_metrics([2, 0, -1, -1, 1], [2, 1, -1, -1, -1])
    assert got == pytest.approx({"error_accuracy": 1 / 2, "correct_accuracy": 2 / 3, "f1": 4 / 7})


@pytest.mark.parametrize(
    ("predictions", "labels", "expected"),
    [
        ([], [], (0, 0, 0)),
        ([-1, -1], [-1, -1], (0, 1, 0)),  # one class only: F1 is 0, not 1
        ([3], [3], (1, 0, 0)),
        ([0, 0], [1, -1], (0, 0, 0)),
    ],
)
def test_degenerate_sets(predictions, labels, expected):
    assert tuple(processbench_metrics(predictions, labels).values()) == expected


def test_metrics_refuse_what_cannot_be_right():
    with pytest.raises(ValueError, match="got 1 predictions and 2 labels"):
        processbench_metrics([0], [0, 1])
    with pytest.raises(ValueError, match="index -2"):
        processbench_metrics([-2], [0])


class Scorer:
    def __init__(self, score):
        self._score = score

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        return [[self._score(step) for step in row] for row in steps]


def test_the_floor_on_the_real_files(shared_data):
    subsets = load_processbench(shared_data)
    assert {name: len(items) for name, items in subsets.items()} == {"gsm8k": 400, "math": 1000}
    always_right = processbench(Scorer(lambda step: 1.0), subsets)
    always_wrong = processbench(Scorer(lambda step: 0.0), subsets)
    for name, items in subsets.items():
        assert (always_right[name]["correct_accuracy"], always_right[name]["f1"]) == (1.0, 0.0)
        first_is_wrong = sum(item.label == 0 for item in items) / sum(item.label >= 0 for item in items)
        assert (always_wrong[name]["error_accuracy"], always_wrong[name]["f1"]) == (first_is_wrong, 0.0)
    generator = random.Random(0)
    at_random = processbench(Scorer(lambda step: generator.random()), subsets)
    assert 0 < at_random["mean"]["f1"] < 0.15


def test_a_perfect_scorer_and_the_mean():
    items = {
        "gsm8k": [ProcessBenchItem("p", ["right", "wrong", "right"], 1), ProcessBenchItem("p", ["right"], -1)],
        "math": [ProcessBenchItem("p", ["right", "right"], 1), ProcessBenchItem("p", ["right"], -1)],
    }
    results = processbench(Scorer(lambda step: 0.9 if step == "right" else 0.5), items)  # 0.5 itself is wrong
    assert results["gsm8k"]["f1"] == 1.0
    assert results["math"] == {
        "error_accuracy": 0.0, "correct_accuracy": 1.0, "f1": 0.0, "threshold": 0.5, "samples": 2, "unscorable": 0,
    }  # fmt: skip
    assert results["mean"] == {"error_accuracy": 0.5, "correct_accuracy": 1.0, "f1": 0.5}


def test_threshold_tuned_on_gsm8k_serves_all_subsets():
    scores = {"good": 3.0, "bad": -2.0}  # another scale: at 0.5 it works, after a shift it does not
    items = {
        "gsm8k": [ProcessBenchItem("p", ["good", "bad"], 1), ProcessBenchItem("p", ["good"], -1)],
        "math": [ProcessBenchItem("p", ["bad"], 0), ProcessBenchItem("p", ["good", "good"], -1)],
    }
    shifted = Scorer(lambda step: scores[step] - 10)
    assert processbench(shifted, items)["mean"]["f1"] == 0.0
    tuned = processbench(shifted, items, threshold="gsm8k")
    assert tuned["mean"]["f1"] == 1.0 and tuned["math"]["threshold"] == -9.5
    with pytest.raises(ValueError, match="needs that subset"):
        processbench(shifted, {"math": items["math"]}, threshold="gsm8k")


def test_unscorable_steps_are_counted_and_are_no_errors():
    results = processbench(Scorer(lambda step: float("nan")), {"math": [ProcessBenchItem("p", ["a", "b"], -1)]})
    assert results["math"]["correct_accuracy"] == 1.0 and results["math"]["unscorable"] == 1


def test_best_threshold_prefers_the_lowest_of_equal_ones():
    assert best_threshold([[0.9, 0.2], [0.8]], [1, -1]) == 0.5
    assert best_threshold([[0.9, 0.6], [0.8]], [1, -1]) == pytest.approx(0.7)
    assert best_threshold([], []) == 0.5


def test_loading_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no ProcessBench file"):
        load_processbench(tmp_path)
    with pytest.raises(ValueError, match="unknown ProcessBench subset 'gsm'"):
        load_processbench(tmp_path, ["gsm"])
    (tmp_path / "olympiadbench.jsonl").write_text('{"problem": "p", "steps": ["s"]}\n')
    with pytest.raises(
        ValueError, match=r"olympiadbench.jsonl:1: label: got None, expected a whole number from -1 to 0"
    ):
        load_processbench(tmp_path)
