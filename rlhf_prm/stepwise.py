"""Stepwise supervision: one row per solution, one label per step, as TRL's former stepwise type with two more columns.

    {"prompt": str, "completions": [str], "labels": [bool], "soft_labels": [float], "source": str}

``completions`` are the steps; ``labels[k]`` says whether step k is correct; ``soft_labels[k]`` ∈ [0, 1] is how sure its
source was (the hit rate of Monte-Carlo completions, the share of a judge's votes; 0 or 1 where the source only gives a
verdict); ``source`` says who labelled. The three lists have equal lengths.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

COLUMNS = ("prompt", "completions", "labels", "soft_labels", "source")


@dataclass(frozen=True)
class StepLabels:
    """What one source says of one solution's steps.

    Args:
        labels: True = correct, for the steps that were looked at: all of them, or those up to the first wrong one.
        soft_labels: the same steps in [0, 1].
        source: "monte_carlo", "judge", "consensus", "human", …

    Raises:
        ValueError: the two lists differ in length.
    """

    labels: list[bool]
    soft_labels: list[float]
    source: str

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.soft_labels):
            raise ValueError(
                f"got {len(self.labels)} labels and {len(self.soft_labels)} soft labels, expected one of each per step"
            )

    @property
    def first_error(self) -> int:
        """0-based index of the first wrong step; −1 where there is none."""
        return self.labels.index(False) if False in self.labels else -1

    def row(self, prompt: str, steps: list[str]) -> dict[str, Any]:
        """The stepwise row. Steps that were not looked at come after a wrong one: label False, soft label 0.

        Raises:
            ValueError: more labels than steps, or steps without a label although none was found wrong.
        """
        missing = len(steps) - len(self.labels)
        if missing < 0 or (missing and self.first_error < 0):
            raise ValueError(f"{len(self.labels)} labels for {len(steps)} steps and first error {self.first_error}")
        return {
            "prompt": prompt,
            "completions": list(steps),
            "labels": self.labels + [False] * missing,
            "soft_labels": self.soft_labels + [0.0] * missing,
            "source": self.source,
        }


def labels_from_first_error(first_error: int, num_steps: int, source: str) -> StepLabels:
    """Labels up to and including the first wrong step (0-based; −1 = all ``num_steps`` are correct).

    Raises:
        ValueError: ``first_error`` is outside [−1, num_steps).
    """
    if not -1 <= first_error < num_steps:
        raise ValueError(f"first_error: got {first_error}, expected −1 or an index below the {num_steps} steps")
    labels = [True] * num_steps if first_error < 0 else [True] * first_error + [False]
    return StepLabels(labels, [float(label) for label in labels], source)


def check_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row itself, if it is a well-formed stepwise row.

    Raises:
        ValueError: a column is missing, has no steps, or the lists differ in length.
    """
    missing = [column for column in COLUMNS if row.get(column) is None]
    if missing:
        raise ValueError(f"stepwise row: {', '.join(missing)} missing, expected the columns {', '.join(COLUMNS)}")
    lengths = {column: len(row[column]) for column in COLUMNS[1:4]}
    if len(set(lengths.values())) != 1 or not lengths["completions"]:
        raise ValueError(f"stepwise row: got lengths {lengths}, expected one label and soft label per step, ≥ 1 step")
    return row


def to_dataset(rows: Iterable[dict[str, Any]]):
    """A ``datasets.Dataset`` of stepwise rows, each one checked (``.push_to_hub(name)`` publishes it)."""
    from datasets import Dataset

    checked = [check_row(row) for row in rows]
    return Dataset.from_dict({column: [row[column] for row in checked] for column in COLUMNS})
