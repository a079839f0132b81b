"""Rows of a file of rollouts, read and scored in their order."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from rlhf_prm.columns import RESPONSE_COLUMNS, problem_of, steps_of
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.step_data import read_records
from rlhf_prm.steps import StepSplitter

TEXT_COLUMNS = (*RESPONSE_COLUMNS, "solution")
Rollout = tuple[dict, str, list[str]]  # the row, its problem, its steps


def read_rollouts(path: Path, splitter: StepSplitter, problem_column: str | None = None) -> Iterator[Rollout]:
    """(row, problem, steps) of each row; a ``ValueError`` that names the row if something is missing."""
    for where, row in read_records(path):
        try:
            if isinstance(row, ValueError):
                raise row
            yield row, problem_of(row, problem_column), steps_of(row, splitter, TEXT_COLUMNS)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def scored_rows(rollouts: Iterable[Rollout], scorer: StepScorer, chunk: int) -> Iterator[dict]:
    """The rows in their order, each with ``step_scores``; a chunk is scored as one call."""
    rollouts = iter(rollouts)
    while part := list(islice(rollouts, chunk)):
        scores = scorer.score([problem for _, problem, _ in part], [steps for _, _, steps in part])
        for (row, _, _), values in zip(part, scores, strict=True):
            yield row | {"step_scores": [None if math.isnan(value) else value for value in values]}
