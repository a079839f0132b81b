"""ProcessBench (arXiv 2412.06559), or data like it: find the first wrong step of real solutions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.rows import read_items, text, texts, whole
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, predicted_first_error
from rlhf_prm.step_data import SUFFIXES

SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
TUNING_SUBSET = "gsm8k"


@dataclass(frozen=True)
class ProcessBenchItem:
    """One solution: ``label`` is the 0-based index of its first wrong step, −1 when every step is right.

    ``final_answer_correct`` is None if the file does not have it; right answers with label ≥ 0 are not rare.
    """

    problem: str
    steps: list[str]
    label: int
    final_answer_correct: bool | None = None


def processbench_metrics(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Error accuracy, correct accuracy and their harmonic mean F1, each in [0, 1].

    ``error_accuracy`` a is the share of erroneous samples (label ≥ 0) whose first error is hit exactly;
    ``correct_accuracy`` b is the share of correct samples (label −1) with the prediction −1; f1 = 2ab/(a+b), 0 when
    a + b = 0. Accuracy over no samples is 0, so a set of one class only has f1 = 0: it measures no trade-off.

    Raises:
        ValueError: lists of different lengths, or an index below −1.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"got {len(predictions)} predictions and {len(labels)} labels, expected one per sample")
    if bad := [value for value in (*predictions, *labels) if value < -1]:
        raise ValueError(f"got the index {bad[0]}, expected 0-based step indices, or −1 for no error")
    erroneous = [prediction == label for prediction, label in zip(predictions, labels, strict=True) if label >= 0]
    correct = [prediction == -1 for prediction, label in zip(predictions, labels, strict=True) if label == -1]
    a = sum(erroneous) / len(erroneous) if erroneous else 0.0
    b = sum(correct) / len(correct) if correct else 0.0
    return {"error_accuracy": a, "correct_accuracy": b, "f1": 2 * a * b / (a + b) if a + b > 0 else 0.0}


def is_silent(step_scores: Sequence[float]) -> bool:
    """Whether no step has a score: a judge's answer that cannot be read."""
    return all(score != score for score in step_scores)


def unscorable(rows: Sequence[Sequence[float]]) -> int:
    """The number of solutions with a step that has no score."""
    return sum(any(score != score for score in row) for row in rows)


def as_missed(label: int) -> int:
    """A first error that counts as missed in every measure: an error in a right solution, none in a wrong one."""
    return 0 if label == -1 else -1


def first_errors_of(
    rows: Sequence[Sequence[float]], labels: Sequence[int], threshold: float, *, silence_is_missed: bool
) -> list[int]:
    """The predicted first error of each solution's scores; see :func:`processbench` for ``silence_is_missed``."""
    return [
        as_missed(label) if silence_is_missed and is_silent(row) else predicted_first_error(row, threshold)
        for row, label in zip(rows, labels, strict=True)
    ]


def wrong_process_metrics(
    predictions: Sequence[int], labels: Sequence[int], answers: Sequence[bool | None]
) -> dict[str, float]:
    """Right answers with a wrong process (Table 5 of arXiv 2501.07301): how many, and how often the first error is hit.

    Returns:
        ``wrong_process``, the number of solutions whose final answer is right and whose label is not −1, and
        ``wrong_process_found``, the share of them whose first error is named exactly; nothing where there is none.
    """
    hits = [p == t for p, t, right in zip(predictions, labels, answers, strict=True) if right and t >= 0]
    return {"wrong_process": len(hits), "wrong_process_found": sum(hits) / len(hits)} if hits else {}


def load_processbench(path: str | Path, subsets: Sequence[str] | None = None) -> dict[str, list[ProcessBenchItem]]:
    """Solutions with their first wrong steps, by the name of the set: ProcessBench's own, or any with its columns.

    Args:
        path: a file, whose name without ending (and without ``processbench_``) is the set's; or a folder. In a folder
            that has one of SUBSETS, those are read, in that order; in another one every file of rows.
        subsets: in a folder, the names of the sets to read.

    Raises:
        ValueError: there is nothing to read, none of the sets asked for exists, or a row
            cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return {set_name(path): read_items(path, _item, "ProcessBench")}
    files = {set_name(file): file for file in sorted(path.glob("*")) if file.name.endswith(SUFFIXES)}
    own = [name for name in SUBSETS if name in files]
    wanted = list(subsets) if subsets is not None else own or list(files)
    found = {name: read_items(files[name], _item, "ProcessBench") for name in wanted if name in files}
    if not found:
        asked = f"{', '.join(wanted)} (as NAME.jsonl or processbench_NAME.jsonl)" if wanted else ", ".join(SUBSETS)
        raise ValueError(
            f"no ProcessBench file in {path}: expected {asked}, or a file or folder of rows with problem, steps and "
            f"label; there are {', '.join(files) or 'none'}"
        )
    return found


def set_name(path: Path) -> str:
    """The name of a file's set: ``processbench_gsm8k.jsonl`` is gsm8k."""
    ending = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), path.suffix)
    return path.name.removesuffix(ending).removeprefix("processbench_")


def _item(row: dict[str, Any]) -> ProcessBenchItem:
    steps = texts(row, "steps")
    label = whole(row.get("label"), "label", -1, len(steps) - 1, "the first wrong step counted from 0, or -1 for none")
    answer = row.get("final_answer_correct")
    if answer is not None and not isinstance(answer, bool):
        raise ValueError(f"final_answer_correct: got {answer!r:.60}, expected true, false or nothing")
    return ProcessBenchItem(text(row, "problem"), steps, label, answer)


def best_threshold(step_scores: Sequence[Sequence[float]], labels: Sequence[int]) -> float:
    """The threshold with the highest F1, and the lowest of equally good ones. A step is wrong at or below it.

    Candidates are 0.5 and every midpoint between neighbouring distinct scores (at most 512 of them, evenly spread over
    the ranks), so scores may be on any scale.
    """
    distinct = sorted({score for row in step_scores for score in row if score == score})
    middles = [(low + high) / 2 for low, high in pairwise(distinct)]
    stride = max(1, -(-len(middles) // 512))
    candidates = sorted({WRONG_AT_OR_BELOW, *middles[::stride]})
    return max(candidates, key=lambda threshold: (_f1(step_scores, labels, threshold), -threshold))


def _f1(step_scores: Sequence[Sequence[float]], labels: Sequence[int], threshold: float) -> float:
    return processbench_metrics([predicted_first_error(row, threshold) for row in step_scores], labels)["f1"]


def check_threshold(threshold: float | str, subsets: Sequence[str]) -> None:
    """Check, before anything is scored, that a threshold to be tuned has the subset it is tuned on.

    Raises:
        ValueError: that subset is not among ``subsets``, or the threshold is NaN.
    """
    if isinstance(threshold, str):
        if threshold not in subsets:
            raise ValueError(f"threshold {threshold!r} needs that subset, got only {', '.join(subsets)}")
    elif threshold != threshold:
        raise ValueError(f"threshold: got {threshold!r}, expected a number or the name of a subset to tune it on")


def processbench(
    scorer: StepScorer,
    subsets: Mapping[str, Sequence[ProcessBenchItem]],
    threshold: float | str = WRONG_AT_OR_BELOW,
    *,
    silence_is_missed: bool = False,
) -> dict[str, dict[str, float]]:
    """Metrics of ``scorer`` on each subset, and their plain mean over the subsets under ``"mean"``.

    Args:
        threshold: a step is wrong when its score ≤ this; the name of a subset takes the one that is best there and
            uses it for all, as the paper does with "gsm8k" for PRMs on another scale.
        silence_is_missed: a sample without any score counts as missed, whatever its label, as ProcessBench counts a
            critic's answer that cannot be read. Otherwise nothing is wrong in it, as with steps past a PRM's context.

    Each subset also reports ``samples``, ``unscorable`` (samples with a step that has no score) and, where it knows the
    answers' verdicts, :func:`wrong_process_metrics`.
    """
    check_threshold(threshold, list(subsets))
    scores = {
        name: scorer.score([item.problem for item in items], [item.steps for item in items])
        for name, items in subsets.items()
    }
    labels = {name: [item.label for item in items] for name, items in subsets.items()}
    if isinstance(threshold, str):
        threshold = best_threshold(scores[threshold], labels[threshold])
    results: dict[str, dict[str, float]] = {}
    for name, rows in scores.items():
        predictions = first_errors_of(rows, labels[name], threshold, silence_is_missed=silence_is_missed)
        results[name] = processbench_metrics(predictions, labels[name])
        answers = [item.final_answer_correct for item in subsets[name]]
        results[name] |= wrong_process_metrics(predictions, labels[name], answers)
        results[name]["threshold"] = float(threshold)
        results[name]["samples"] = len(rows)
        results[name]["unscorable"] = unscorable(rows)
    means = ("error_accuracy", "correct_accuracy", "f1")
    rows = list(results.values())
    results["mean"] = {key: sum(row[key] for row in rows) / len(rows) for key in means}
    if found := [row["wrong_process_found"] for row in rows if "wrong_process_found" in row]:
        results["mean"]["wrong_process_found"] = sum(found) / len(found)
    return results
