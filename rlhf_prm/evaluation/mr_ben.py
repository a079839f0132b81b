"""MR-Ben (arXiv 2406.13975): judge whole solutions, and find the first wrong step of the wrong ones."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.processbench import first_errors_of, unscorable
from rlhf_prm.evaluation.rows import read_items, text, texts, whole
from rlhf_prm.files import read_json
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, correlation


@dataclass(frozen=True)
class MRBenItem:
    """One solution: ``label`` is the 0-based index of its first wrong step, −1 for a correct solution.

    ``reasons`` and ``corrections`` are what the annotators wrote of that step.
    """

    problem: str
    steps: list[str]
    label: int
    subject: str
    reasons: tuple[str, ...] = ()
    corrections: tuple[str, ...] = ()


def load_mr_ben(path: str | Path) -> list[MRBenItem]:
    """The rows of a JSONL file, or of the published JSON, whose solutions stand in lists under their question's id.

    Raises:
        ValueError: a row whose columns or step number cannot be read.
    """
    path = Path(path)
    if path.suffix == ".json" and path.is_file():
        try:
            content = read_json(path)
        except ValueError:  # lines of JSON, which read_items reads and whose faults it names
            content = None
        if isinstance(content, dict) and content and all(isinstance(rows, list) for rows in content.values()):
            return [_named(f"{path.name}, {key}", row) for key, rows in content.items() for row in rows]
    return read_items(path, _item, "MR-Ben")


def _named(where: str, row: Any) -> MRBenItem:
    try:
        if not isinstance(row, dict):
            raise ValueError(f"got a {type(row).__name__}, expected an object")
        return _item(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _item(row: dict[str, Any]) -> MRBenItem:
    steps, verdict = texts(row, "Model_Solution_Steps"), text(row, "Model_Solution_Correctness").strip().lower()
    if verdict not in ("correct", "incorrect"):
        raise ValueError(f"Model_Solution_Correctness: got {verdict!r:.60}, expected correct or incorrect")
    label = -1
    if verdict == "incorrect":
        column, meaning = "Model_Solution_First_Error_Step", "the first wrong step counted from 1"
        label = whole(row.get(column), column, 1, len(steps), meaning) - 1
    options = f"\n{row['Options']}" if row.get("Options") else ""
    told = [_texts_of(row, f"Model_Solution_{name}") for name in ("Error_Reason", "Rectified_First_Error_Step")]
    return MRBenItem(text(row, "Question") + options, steps, label, text(row, "Subject"), *told)


def _texts_of(row: dict[str, Any], column: str) -> tuple[str, ...]:
    """What annotators wrote: a list of texts, one text, or nothing."""
    value = row.get(column) or []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{column}: got {value!r:.60}, expected a text or a list of texts")
    return tuple(one for one in texts if one.strip() and one.strip() != "N/A")


def matthews_correlation(predicted: Sequence[bool], truth: Sequence[bool]) -> float:
    """(TP·TN − FP·FN)/√((TP+FP)(TP+FN)(TN+FP)(TN+FN)), which is Pearson's r of the two; 0 where it is undefined."""
    found = correlation(predicted, truth)
    return 0.0 if math.isnan(found) else found


def mr_score_parts(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """``mcc`` of calling solutions correct, ``acc_step`` over incorrect solutions, and the MR-Score they can give.

    MR-Score = 0.2·max(0, MCC) + 0.3·ACC_step + 0.5·ACC_reason. A PRM explains nothing, so ACC_reason is not measured:
    ``mr_score_without_reason`` is the sum of the first two terms, at most 0.5, and not an MR-Score. An LLM that gives
    reasons has the whole score: ``rlhf_prm.evaluation.mr_ben_reasons``.
    """
    mcc = matthews_correlation([p == -1 for p in predictions], [label == -1 for label in labels])
    wrong = [prediction == label for prediction, label in zip(predictions, labels, strict=True) if label >= 0]
    acc_step = sum(wrong) / len(wrong) if wrong else 0.0
    return {"mcc": mcc, "acc_step": acc_step, "mr_score_without_reason": 0.2 * max(0.0, mcc) + 0.3 * acc_step}


def mr_ben(
    scorer: StepScorer,
    items: Sequence[MRBenItem],
    threshold: float = WRONG_AT_OR_BELOW,
    *,
    silence_is_missed: bool = False,
) -> dict[str, dict[str, float]]:
    """Parts of the MR-Score for each subject and for ``"all"`` samples together, with the number of samples.

    ``silence_is_missed`` and ``unscorable`` are those of :func:`rlhf_prm.evaluation.processbench.processbench`.
    """
    scores = scorer.score([item.problem for item in items], [item.steps for item in items])
    labels = [item.label for item in items]
    predictions = first_errors_of(scores, labels, threshold, silence_is_missed=silence_is_missed)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.subject].append(index)
    groups["all"] = list(range(len(items)))
    return {
        name: mr_score_parts([predictions[i] for i in indices], [labels[i] for i in indices])
        | {"samples": len(indices), "unscorable": unscorable([scores[i] for i in indices])}
        for name, indices in groups.items()
    }
