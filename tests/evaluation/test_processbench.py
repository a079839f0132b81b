"""ProcessBench's metric against a reference written from its definition, and the real files as a floor."""

import json
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
    with pytest.raises(ValueError, match=r"expected gsm \(as NAME.jsonl or processbench_NAME.jsonl\).*there are none"):
        load_processbench(tmp_path, ["gsm"])
    (tmp_path / "olympiadbench.jsonl").write_text('{"problem": "p", "steps": ["s"]}\n')
    with pytest.raises(
        ValueError, match=r"olympiadbench.jsonl:1: label: got None, expected a whole number from -1 to 0"
    ):
        load_processbench(tmp_path)


ROW = {"problem": "p", "steps": ["right", "wrong"], "label": 1}


def test_data_of_any_name(tmp_path):
    """A file, a folder of other names, and one of ProcessBench's own among others."""
    for name in ("physics.jsonl", "processbench_chemistry.json"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, (ROW, ROW | {"steps": ["right"], "label": -1}))))
    scorer = Scorer(lambda step: 0.9 if step == "right" else 0.1)
    assert list(load_processbench(tmp_path / "physics.jsonl")) == ["physics"]
    both = load_processbench(tmp_path)
    assert list(both) == ["physics", "chemistry"]
    assert processbench(scorer, both)["physics"]["error_accuracy"] == 1.0
    assert list(load_processbench(tmp_path, ["chemistry"])) == ["chemistry"]
    (tmp_path / "math.jsonl").write_text(json.dumps(ROW))
    assert list(load_processbench(tmp_path)) == ["math"]  # ProcessBench's own: other files beside it are not read
    assert list(load_processbench(tmp_path, ["math", "physics"])) == ["math", "physics"]
    tuned = processbench(Scorer(lambda step: 9.0 if step == "right" else 7.0), both, threshold="physics")
    assert tuned["chemistry"]["error_accuracy"] == 1.0 and tuned["chemistry"]["threshold"] == 8.0


def test_right_answers_with_a_wrong_process_by_hand():
    """Of three such solutions two are found, one of them at the wrong step; the others do not count."""
    items = [
        ProcessBenchItem("p", ["right", "wrong"], 1, True),
        ProcessBenchItem("p", ["wrong", "right"], 1, True),
        ProcessBenchItem("p", ["right", "right"], 1, True),
        ProcessBenchItem("p", ["wrong"], 0, False),
        ProcessBenchItem("p", ["right"], -1, True),
        ProcessBenchItem("p", ["wrong"], 0, None),
    ]
    results = processbench(Scorer(lambda step: 0.9 if step == "right" else 0.1), {"math": items})
    assert (results["math"]["wrong_process"], results["math"]["wrong_process_found"]) == (3, 1 / 3)
    assert results["mean"]["wrong_process_found"] == 1 / 3


def test_the_real_files_against_an_independent_count(shared_data):
    """Every number of the table from the raw rows, by loops of its own, for a scorer that follows from the text."""
    subsets = load_processbench(shared_data)
    results = processbench(Scorer(lambda step: (len(step) % 7) / 7), subsets, threshold=0.15)
    for name in subsets:
        rows = [json.loads(line) for line in (shared_data / f"processbench_{name}.jsonl").read_text().splitlines()]
        hit, wrong, passed, right, found, odd = 0, 0, 0, 0, 0, 0
        for row in rows:
            said = -1
            for k, step in enumerate(row["steps"]):
                if len(step) % 7 <= 1:
                    said = k
                    break
            if row["label"] == -1:
                right, passed = right + 1, passed + (said == -1)
            else:
                wrong, hit = wrong + 1, hit + (said == row["label"])
                if row["final_answer_correct"]:
                    odd, found = odd + 1, found + (said == row["label"])
        a, b = hit / wrong, passed / right
        expected = {"error_accuracy": a, "correct_accuracy": b, "f1": 2 * a * b / (a + b), "wrong_process": odd}
        assert {key: results[name][key] for key in expected} == pytest.approx(expected)
        assert results[name]["wrong_process_found"] == pytest.approx(found / odd)
    assert [results[name]["wrong_process"] for name in ("gsm8k", "math")] == [7, 94]  # as in the paper's Table 5
