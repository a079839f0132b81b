"""``judged.jsonl`` holds all verdicts of a run, as stepwise rows that a PRM can be trained on."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlhf_prm.generation.tasks import RejectedRow
from rlhf_prm.judges.votes import Vote, first_error_said, labels_from_votes
from rlhf_prm.step_data import cut_torn_line, read_records

FILE = "judged.jsonl"
Votes = list[list[float] | None]


def judged_row(
    problem: str, steps: Sequence[str], votes: Sequence[list[float] | None], source: str
) -> dict[str, Any] | None:
    """The stepwise row of a solution, with its votes; None if they give no label.

    The label is the first error that most votes name; a tie gives none, nor do votes that left out a step before their
    first error. All ``votes`` are kept, null = unreadable or left out, so that nothing is asked twice.
    """
    first_errors = [None if vote is None else first_error_said(vote) for vote in votes]
    try:
        labels = labels_from_votes([Vote(i, error, 1, []) for i, error in enumerate(first_errors)], len(steps))
    except RejectedRow:
        return None
    told = [None if vote is None else [None if math.isnan(s) else s for s in vote] for vote in votes]
    return labels.row(problem, list(steps)) | {"source": source, "votes": told}


class JudgedRows:
    """Appends rows to the ``judged.jsonl`` of a run's folder; several processes may append to one file.

    Args:
        folder: of the run.
        settings: a hash of what the votes depend on; only rows with the same are read back.
    """

    def __init__(self, folder: str | Path, settings: str) -> None:
        self.path, self.settings = Path(folder) / FILE, settings
        self._whole = False

    def append(self, row: dict[str, Any]) -> None:
        """Write one row as one line, whole or not at all."""
        if not self._whole:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cut_torn_line(self.path)
            self._whole = True
        line = json.dumps(row | {"settings": self.settings}, ensure_ascii=False).encode() + b"\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line)

    def votes(self) -> Iterator[tuple[str, tuple[str, ...], Votes]]:
        """(problem, steps, votes) of the rows in the file; an incomplete line is ignored."""
        if not self.path.is_file():
            return
        for _, row in read_records(self.path):
            if isinstance(row, ValueError) or row.get("settings") != self.settings or "votes" not in row:
                continue
            votes = [
                None if vote is None else [math.nan if s is None else float(s) for s in vote] for vote in row["votes"]
            ]
            yield row["prompt"], tuple(row["completions"]), votes
