"""PRMBench (arXiv 2501.03124): find planted errors of many kinds at their steps."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.processbench import is_silent, unscorable
from rlhf_prm.evaluation.rows import read_items, text, texts, whole
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW

MOST_STEPS = 1000  # more than any solution has: a larger number is not a step


@dataclass(frozen=True)
class PRMBenchItem:
    """One modified solution: ``labels[k]`` False = an error was planted in step k."""

    problem: str
    steps: list[str]
    labels: list[bool]
    category: str


def load_prmbench(path: str | Path) -> list[PRMBenchItem]:
    """The published JSONL rows; ``error_steps`` are 1-based; those past the last step (there are some) are left out.

    Raises ``ValueError`` for a row whose columns cannot be read.
    """
    return read_items(path, _item, "PRMBench")


def _item(row: dict[str, Any]) -> PRMBenchItem:
    steps, errors = texts(row, "modified_process"), row.get("error_steps")
    if not isinstance(errors, list):
        raise ValueError(f"error_steps: got {errors!r:.60}, expected a list of steps counted from 1")
    wrong = {whole(error, "error_steps", 1, MOST_STEPS, "a step counted from 1") for error in errors}
    labels = [step not in wrong for step in range(1, len(steps) + 1)]
    return PRMBenchItem(text(row, "modified_question"), steps, labels, text(row, "classification"))


def f1(predicted: Sequence[bool], truth: Sequence[bool]) -> float:
    """2TP/(2TP + FP + FN) of the class True; 0 if that class is neither predicted nor present."""
    hits = sum(p and t for p, t in zip(predicted, truth, strict=True))
    denominator = sum(predicted) + sum(truth)
    return 2 * hits / denominator if denominator else 0.0


def step_report(predicted: Sequence[bool], truth: Sequence[bool]) -> dict[str, float]:
    """``f1_right`` and ``f1_wrong`` over steps, accuracy, and PRMScore = their mean.

    A category without planted errors has no wrong steps to find: its PRMScore is ``f1_right`` alone.
    """
    right = f1(predicted, truth)
    wrong = f1([not p for p in predicted], [not t for t in truth])
    has_errors = not all(truth)
    return {
        "f1_right": right,
        "f1_wrong": wrong,
        "accuracy": sum(p == t for p, t in zip(predicted, truth, strict=True)) / max(len(truth), 1),
        "prm_score": (right + wrong) / 2 if has_errors else right,
    }


def prmbench(
    scorer: StepScorer,
    items: Sequence[PRMBenchItem],
    threshold: float = WRONG_AT_OR_BELOW,
    *,
    silence_is_missed: bool = False,
) -> dict[str, dict[str, float]]:
    """Step-level report of each category and of ``"all"`` steps; a step is right when its score > threshold.

    A step without a score counts as right. With ``silence_is_missed`` every step of a sample without any score counts
    as missed, whatever its label. ``unscorable`` counts the samples with a step that has no score.
    """
    scores = scorer.score([item.problem for item in items], [item.steps for item in items])
    predicted: dict[str, list[bool]] = defaultdict(list)
    truth: dict[str, list[bool]] = defaultdict(list)
    rows: dict[str, list[Sequence[float]]] = defaultdict(list)
    for item, row in zip(items, scores, strict=True):
        missed = silence_is_missed and is_silent(row)
        said = [not label for label in item.labels] if missed else [not score <= threshold for score in row]
        for name in (item.category, "all"):
            predicted[name] += said
            truth[name] += item.labels
            rows[name].append(row)
    names = [*sorted(name for name in predicted if name != "all"), "all"]
    return {
        name: step_report(predicted[name], truth[name])
        | {"samples": len(rows[name]), "unscorable": unscorable(rows[name])}
        for name in names
        if rows[name]
    }
