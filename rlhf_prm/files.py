"""Writes files atomically, and reads and writes files with one JSON object per line."""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; once it is complete and on disk, it is renamed to ``path``.

    If the writing fails, or the process is killed, ``path`` is as it was before. Of two that write at once, the
    one that is complete last stays.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text atomically."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Write one JSON value atomically, indented; ``default`` as for ``json.dumps``."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=default) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON value that a file holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from error


def write_json_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object per line, atomically; returns the number of lines. Rows are taken one at a time."""
    count = 0
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json_lines(path: str | Path, *, may_be_cut: bool = False) -> list[dict[str, Any]]:
    """The objects of a file with one per line; empty lines are left out.

    Args:
        may_be_cut: a process may have been killed while it wrote: the file may be missing, and a last line without
            its line end is ignored.

    Raises:
        ValueError: a line is not a JSON object.
    """
    if may_be_cut and not Path(path).exists():
        return []
    *lines, last = Path(path).read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines if may_be_cut else [*lines, last], 1):
        if line.strip():
            try:
                rows.append(json_object(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}; expected one JSON object a line") from error
    return rows


def json_object(line: bytes | str) -> dict[str, Any]:
    """The JSON object of one line.

    Raises:
        ValueError: it is not JSON, or another value.
    """
    try:
        value = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"got a {type(value).__name__}, expected an object")
    return value
