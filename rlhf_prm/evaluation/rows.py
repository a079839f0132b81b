"""Reads rows of the benchmarks' files; errors say what came, what was expected, and in which row."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rlhf_prm.step_data import read_all

Item = TypeVar("Item")


def read_items(path: str | Path, item: Callable[[dict[str, Any]], Item], kind: str) -> list[Item]:
    """``item(row)`` of every row of a .jsonl, .json or .parquet file.

    Raises:
        ValueError: the file cannot be read, is empty, or ``item`` refuses a row; the message names the row.
    """
    items = []
    for where, row in read_all(path):
        try:
            items.append(item(row))
        except ValueError as error:
            raise ValueError(f"{where}: {error}; expected a row of {kind}") from error
    return items


def text(row: dict[str, Any], column: str) -> str:
    """The text in a column. Raises ``ValueError`` for anything else, a blank text too."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column}: got {_told(row, column)}, expected a text")
    return value


def texts(row: dict[str, Any], column: str) -> list[str]:
    """The list of texts in a column. Raises ``ValueError`` for anything else, an empty list too."""
    value = row.get(column)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{column}: got {_told(row, column)}, expected a list of texts, at least one")
    return value


def whole(value: Any, column: str, low: int, high: int, meaning: str) -> int:
    """A whole number (or its digits as text) from ``low`` to ``high``. Raises ``ValueError`` for anything else."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]+\s*", value):
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise ValueError(f"{column}: got {value!r:.60}, expected a whole number from {low} to {high}, {meaning}")
    return number


def _told(row: dict[str, Any], column: str) -> str:
    if column not in row:
        return f"nothing (the columns are {', '.join(sorted(map(str, row))) or 'none'})"
    return f"{row[column]!r:.60}"
