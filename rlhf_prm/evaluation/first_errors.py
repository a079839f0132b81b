"""Counts right answers reached by a wrong process: a judge or PRM names the first wrong step of each sample.

arXiv 2501.07301 counts them on a policy's samples (Figure 6); here the labels are also written back into the file, as
``first_errors``, which the audit reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_prm.evaluation.samples import SampledProblem, SampleRow
from rlhf_prm.files import write_json_lines
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, predicted_first_error, share_interval
from rlhf_prm.step_data import read_all
from rlhf_prm.steps import StepSplitter


def first_error_known(step_scores: Sequence[float], threshold: float = WRONG_AT_OR_BELOW) -> int | None:
    """The first step scored at or below the threshold, −1 where all steps are above it.

    None if it is not known: an unscored step comes before the first wrong one, or some steps are unscored and none of
    the scored ones is wrong.
    """
    found = predicted_first_error(step_scores, threshold)
    looked_at = step_scores if found < 0 else step_scores[:found]
    return None if any(score != score for score in looked_at) or not step_scores else found


def labelled_rows(
    rows: Sequence[SampleRow],
    scorer: StepScorer,
    splitter: StepSplitter | None = None,
    threshold: float = WRONG_AT_OR_BELOW,
) -> list[SampleRow]:
    """The rows with ``first_errors`` of every completion.

    Known first errors of a row stay as they are; the others are scored in one call.
    """
    splitter = splitter or StepSplitter()
    asked = [
        (index, place)
        for index, row in enumerate(rows)
        for place in range(len(row.completions))
        if row.first_errors is None or row.first_errors[place] is None
    ]
    steps = [splitter.split(rows[index].completions[place]) for index, place in asked]
    scores = scorer.score([rows[index].problem for index, _ in asked], steps) if asked else []
    errors = [list(row.first_errors or [None] * len(row.completions)) for row in rows]
    for (index, place), row_scores in zip(asked, scores, strict=True):
        errors[index][place] = first_error_known(row_scores, threshold)
    return [replace(row, first_errors=found) for row, found in zip(rows, errors, strict=True)]


def process_by_answer(samples: Iterable[SampledProblem]) -> dict[str, dict[str, Any]]:
    """How many right answers have a wrong process, by category where the samples have some, and over all.

    Columns: ``solutions``; ``known`` (those with a known first error or none); ``right_answers`` among these;
    ``wrong_process``, the share of the right answers that hold a wrong step, with its 95 % interval (Wilson); and
    ``error_found``, the share of the wrong answers in which a wrong step was found.
    """
    groups: dict[str, list[tuple[bool, int | None]]] = {}
    for sample in samples:
        errors = sample.first_errors or [None] * len(sample.correct)
        pairs = list(zip(sample.correct, errors, strict=True))
        for name in dict.fromkeys([*([sample.category] if sample.category else []), "all"]):
            groups.setdefault(name, []).extend(pairs)
    groups["all"] = groups.pop("all", [])
    return {name: _counts(pairs) for name, pairs in groups.items()}


def _counts(pairs: Sequence[tuple[bool, int | None]]) -> dict[str, Any]:
    known = [(correct, error) for correct, error in pairs if error is not None]
    right = [error for correct, error in known if correct]
    wrong = [error for correct, error in known if not correct]
    share = share_interval(sum(error >= 0 for error in right), len(right))
    found = share_interval(sum(error >= 0 for error in wrong), len(wrong))
    return {
        "solutions": len(pairs),
        "known": len(known),
        "right_answers": len(right),
        "wrong_process": share.mean,
        "low": share.low,
        "high": share.high,
        "error_found": found.mean,
    }


def write_labelled(source: Path, labelled: Sequence[SampleRow], path: Path) -> None:
    """The rows of the file ``source`` as they are, each with the ``first_errors`` of ``labelled``."""
    records = [record for _, record in read_all(source)]
    write_json_lines(
        path, (record | {"first_errors": row.first_errors} for record, row in zip(records, labelled, strict=True))
    )
