"""Stepwise supervision: one row per solution, one label per step, as TRL's former stepwise type with two more columns.

    {"prompt": str, "completions": [str], "labels": [bool], "soft_labels": [float], "source": str}

``completions`` are the steps; ``labels[k]`` says whether step k is correct; ``soft_labels[k]`` ∈ [0, 1] is how sure its
source was (the hit rate of Monte-Carlo completions, the share of a judge's votes; 0 or 1 where the source only gives a
verdict); ``source`` says who labelled. The three lists have equal lengths.
"""

import gzip
import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm import step_formats
from rlhf_prm.files import json_object, whole, write_json_lines
from rlhf_prm.statistics import first_error

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
COLUMNS = ("prompt", "completions", "labels", "soft_labels", "source")


@dataclass(frozen=True)
class StepLabels:
    """The labels of one solution's steps from one source.

    Args:
        labels: True = correct, for the labelled steps: all of them, or those up to the first wrong one.
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
        """0-based index of the first wrong step; −1 if there is none."""
        return first_error(self.labels)

    def row(self, prompt: str, steps: list[str]) -> dict[str, Any]:
        """The stepwise row. Unlabelled steps come after a wrong one and get label False and soft label 0.

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


@dataclass(frozen=True)
class FreshRollout:
    """A solution of the policy in training, without labels.

    ``prompt`` is the problem as a PRM or judge reads it, ``given`` the text or messages that the policy was given
    (None: ``prompt`` itself), ``solution`` the gold answer if there is one, ``verdict`` 1 = right answer, 0 = wrong,
    NaN = unknown.
    """

    prompt: str
    steps: tuple[str, ...]
    solution: str | None = None
    verdict: float = math.nan
    given: str | list[dict[str, Any]] | None = None


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


def processbench_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """ProcessBench: ``label`` is the 0-based first error, −1 = none."""
    steps = record["steps"]
    return [labels_from_first_error(record["label"], len(steps), "human").row(record["problem"], steps)]


def math_shepherd_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Math-Shepherd: steps end with "ки" in ``input`` and with + or − in ``label``; the first begins with "Step 1:"."""
    pieces = record["input"].split("ки")
    labels, rest = [], record["label"]
    for piece in pieces[:-1]:
        mark = rest[len(piece) : len(piece) + 1]
        if not rest.startswith(piece) or mark not in ("+", "-"):
            raise ValueError(f"input and label differ before step mark {len(labels) + 1}: {rest[:60]!r}")
        labels.append(mark == "+")
        rest = rest[len(piece) + 1 :]
    problem, found, first = pieces[0].rpartition("Step 1:")
    if not found or pieces[-1].strip() or rest.strip():
        raise ValueError("expected a problem, then steps from 'Step 1:' on, each ended by 'ки'")
    steps = [step.strip() for step in [found + first, *pieces[1:-1]]]
    return [StepLabels(labels, [float(x) for x in labels], "math-shepherd").row(problem.strip(), steps)]


def prm800k_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """PRM800K: the labelled path, and one more row for every rated alternative to one of its steps, ending in it.

    The path takes each step's chosen completion, or the labeller's own (correct by construction); where there is
    neither, it ends and only the alternatives give rows. Ratings −1 are wrong, 0 and 1 correct. Screening and
    quality-control records give no rows.
    """
    if record.get("is_quality_control_question") or record.get("is_initial_screening_question"):
        return []
    path: list[tuple[str, bool]] = []
    branches: list[list[tuple[str, bool]]] = []
    for step in record["label"]["steps"]:
        rated = [(c["text"], c["rating"] >= 0) for c in step["completions"] or [] if c["rating"] is not None]
        chosen, human = step["chosen_completion"], step["human_completion"]
        if chosen is not None and step["completions"][chosen]["rating"] is not None:
            taken = (step["completions"][chosen]["text"], step["completions"][chosen]["rating"] >= 0)
        else:
            taken = (human["text"], True) if human else None
        branches += [[*path, other] for other in rated if other != taken]
        if taken is None:
            break
        path.append(taken)
    else:
        branches.insert(0, path)
    return [
        StepLabels([good for _, good in chain], [float(good) for _, good in chain], "human").row(
            record["question"]["problem"], [text.strip() for text, _ in chain]
        )
        for chain in branches
        if chain
    ]


def math_aps_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """OmegaPRM trees (2406.06592, as in OpenR's MATH-APS): prefixes with Monte-Carlo values; one row per leaf.

    A prefix's parent is the longest other prefix it begins with; the shortest is the problem. Step correct = value > 0.
    """
    values = {p["solution_prefix"]: float(p["mc_value"]) for p in record["reasoning_steps"]}
    prefixes = sorted(values, key=len)
    parents = {
        text: max((other for other in prefixes if other != text and text.startswith(other)), key=len, default=None)
        for text in prefixes
    }
    if list(parents.values()).count(None) != 1:
        raise ValueError("expected prefixes that all begin with the shortest, the problem")
    rows = []
    for leaf in (text for text in prefixes if text not in parents.values()):
        chain = [leaf]
        while parents[chain[0]] is not None:
            chain.insert(0, parents[chain[0]])
        steps = [after[len(before) :].strip() for before, after in itertools.pairwise(chain)]
        soft = [values[text] for text in chain[1:]]
        if steps:
            rows.append(StepLabels([v > 0 for v in soft], soft, "math-aps").row(chain[0].strip(), steps))
    return rows


def _parsed_rows(parse: Callable[[dict[str, Any]], step_formats.Parsed], source: str):
    """A reader of one of ``rlhf_prm.step_formats``: a step is right if its value is above 0."""

    def rows(record: dict[str, Any]) -> list[dict[str, Any]]:
        problem, steps, values = parse(record)
        return [StepLabels([value > 0 for value in values], values, source).row(problem, steps)]

    return rows


def stepwise_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The row itself, with the verdict on its answer (``outcome``) where it has one."""
    return [{column: record[column] for column in COLUMNS} | _outcome(record)]


def trl_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """TRL's stepwise type; ``soft_labels``, ``source`` and ``outcome`` may be added."""
    problem, steps, labels = step_formats.trl_stepwise(record)
    given = record.get("soft_labels")
    soft = labels if given is None else [float(value) for value in given]
    row = StepLabels([label > 0 for label in labels], soft, record.get("source") or "trl").row(problem, steps)
    return [row | _outcome(record)]


def _outcome(record: dict[str, Any]) -> dict[str, bool]:
    return {"outcome": record["outcome"]} if isinstance(record.get("outcome"), bool) else {}


READERS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "stepwise": stepwise_rows,
    "processbench": processbench_rows,
    "openrlhf": _parsed_rows(step_formats.openrlhf, "openrlhf"),
    "math-shepherd": math_shepherd_rows,
    "math-aps-flat": _parsed_rows(step_formats.flat_math_aps, "math-aps"),
    "prm800k": prm800k_rows,
    "math-aps": math_aps_rows,
    "trl": trl_rows,
    "rlhflow": _parsed_rows(step_formats.rlhflow, "rlhflow"),
    "genprm": _parsed_rows(step_formats.genprm, "genprm"),
}
_SIGNATURES = {  # the first that fits: a narrower one comes before a wider one
    "stepwise": set(COLUMNS),
    "trl": {"prompt", "completions", "labels"},
    "processbench": {"problem", "steps", "label"},
    "openrlhf": {"input", "value"},
    "math-shepherd": {"input", "label"},
    "math-aps-flat": {"question", "process", "label"},
    "prm800k": {"question", "label"},
    "math-aps": {"question", "reasoning_steps"},
}


def read_rows(
    path: str | Path, format: str = "auto", rejected: list[tuple[str, str]] | None = None
) -> Iterator[dict[str, Any]]:
    """Stepwise rows of a JSONL or parquet file in one of the public formats.

    Args:
        format: a name in ``READERS``, or "auto": recognised by the columns of each record.
        rejected: collects (``file:line``, reason) of records that cannot be read; without it they raise.

    Raises:
        ValueError: the file cannot be read, or a record cannot be read and ``rejected`` is not given.
    """
    for where, record in read_records(path):
        try:
            if isinstance(record, Exception):
                raise record
            rows = [check_row(row) for row in READERS[_format_of(record, format)](record)]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
            if rejected is None:
                raise ValueError(f"{where}: {reason}") from error
            rejected.append((where, reason))
            continue
        yield from rows


def _format_of(record: dict[str, Any], format: str) -> str:
    if format != "auto":
        if format not in READERS:
            raise ValueError(f"format {format!r}: expected auto or one of {', '.join(READERS)}")
        return format
    for name, columns in _SIGNATURES.items():
        if columns <= record.keys():
            return name
    if "conversations" in record:
        return "rlhflow" if step_formats.is_rlhflow(record) else "genprm"
    raise ValueError(f"columns {', '.join(sorted(record))} are of no known format ({', '.join(READERS)})")


def read_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """(``file:line``, record) of a .jsonl, .jsonl.gz, .json or .parquet file; a broken line gives a ``ValueError``.

    A .json file holds one list of objects, or lines of them.

    Raises:
        ValueError: the file is missing, a folder, of another kind, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.name.endswith(SUFFIXES))
        raise ValueError(f"{path} is a folder, expected one file; in it there are {', '.join(inside[:8]) or 'none'}")
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path}: expected a {', '.join(SUFFIXES)} file")
    if path.suffix == ".parquet":
        yield from ((f"{path.name}:{i}", record) for i, record in enumerate(_parquet_records(path), 1))
        return
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as lines:
        if path.suffix == ".json" and lines.read(4096).lstrip()[:1] == b"[":
            lines.seek(0)
            yield from _list_records(path.name, lines.read())
            return
        lines.seek(0)
        try:
            for i, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json_object(line)
                except ValueError as error:
                    record = error
                yield f"{path.name}:{i}", record
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error})") from error


def _parquet_records(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is no readable parquet file ({str(error).splitlines()[0]})") from error


def _list_records(name: str, content: bytes) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    try:
        records = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error})") from error
    for i, record in enumerate(records, 1):
        good = isinstance(record, dict)
        yield f"{name}:{i}", record if good else ValueError(f"got a {type(record).__name__}, expected an object")


def read_all(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """(``file:line``, record) of every record of a file.

    Raises:
        ValueError: as ``read_records``; a record cannot be read, or there is none.
    """
    records = []
    for where, record in read_records(path):
        if isinstance(record, ValueError):
            raise ValueError(f"{where}: {record}") from record
        records.append((where, record))
    if not records:
        raise ValueError(f"{path} has no rows, expected at least one JSON object")
    return records


def write_rows(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write stepwise rows to a .jsonl or .parquet file, each one checked; the number written.

    The file appears complete or not at all.
    """
    if Path(path).suffix != ".parquet":
        return write_json_lines(path, map(check_row, rows))
    dataset = to_dataset(rows)
    with whole(path) as partial:
        dataset.to_parquet(str(partial))
    return len(dataset)


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, left by a process that was killed while it wrote."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            end = start
        file.truncate(0)


def to_dataset(rows: Iterable[dict[str, Any]]):
    """A ``datasets.Dataset`` of stepwise rows, each one checked (``.push_to_hub(name)`` publishes it).

    There is a column ``outcome`` if a row has one.
    """
    from datasets import Dataset, Features, List, Value

    features = Features(
        prompt=Value("string"),
        completions=List(Value("string")),
        labels=List(Value("bool")),
        soft_labels=List(Value("float64")),
        source=Value("string"),
    )
    checked = [check_row(row) for row in rows]
    columns = {column: [row[column] for row in checked] for column in COLUMNS}
    if any("outcome" in row for row in checked):
        features["outcome"], columns["outcome"] = Value("bool"), [row.get("outcome") for row in checked]
    return Dataset.from_dict(columns, features=features)
