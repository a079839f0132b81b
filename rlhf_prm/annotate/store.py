"""Stores records so that they survive ``kill -9``: append-only JSONL shards, a manifest, and the rows set aside.

    STAGE/manifest.json     the settings the records were made with, and their hash
    STAGE/00000.jsonl …     one line per record; shard = number of the problem // shard_size
    STAGE/rejected.jsonl    {"id", "reason"} of the rows that cannot be labelled

A line is one ``write``: after a kill at most the last line is incomplete, and an incomplete line is ignored.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_prm.files import read_json, read_json_lines, write_json, write_json_lines
from rlhf_prm.step_data import cut_torn_line


def settings_hash(settings: dict[str, Any]) -> str:
    """16 hexadecimal digits that differ when any setting does."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: str | Path) -> str:
    """16 hexadecimal digits of a file's content.

    Raises:
        ValueError: there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"no file {path}")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class Shards:
    """The records of one stage, for reading.

    Args:
        folder: it need not exist.
        shard_size: problems per shard.
    """

    def __init__(self, folder: str | Path, shard_size: int):
        self.folder, self.shard_size = Path(folder), shard_size

    def shard_of(self, problem: int) -> int:
        """The shard of the problem with this number."""
        return problem // self.shard_size

    def last_shard(self) -> int:
        """The number of the last shard with records; −1 without any."""
        return max((int(path.stem) for path in self.folder.glob("[0-9]*.jsonl")), default=-1)

    def records(self, shard: int) -> list[dict[str, Any]]:
        """The records of a shard, in the order they were written, without an incomplete last line."""
        try:
            return read_json_lines(self._shard_path(shard), may_be_cut=True)
        except ValueError as error:
            raise ValueError(f"{error}; delete that line, and its record is made again") from error

    def rejected(self) -> dict[str, str]:
        """id → reason of the rows set aside."""
        rows = read_json_lines(self.folder / "rejected.jsonl", may_be_cut=True)
        return {row["id"]: row["reason"] for row in rows}

    def _shard_path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.jsonl"


class StageStore(Shards):
    """The records of one stage in its folder, for writing; only one process may write there at a time.

    Args:
        folder: created if it does not exist.
        settings: everything that the records depend on.
        shard_size: problems per shard.
        of_worker: True in a worker, to which the process that has locked the folder assigns shards.

    Raises:
        ValueError: the folder holds records made with other settings, or another process is writing there.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], shard_size: int, *, of_worker: bool = False):
        super().__init__(folder, shard_size)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[Path, BinaryIO] = {}
        self._lock = open(self.folder / ".lock", "wb")  # noqa: SIM115 (held until close)
        try:
            if not of_worker:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(
                f"{self.folder}: another process is writing there; wait for it or use another --out"
            ) from None
        self.hash = settings_hash(settings)
        self._check_manifest(settings)

    def _check_manifest(self, settings: dict[str, Any]) -> None:
        path = self.folder / "manifest.json"
        if not path.exists():
            write_json(path, {"hash": self.hash, "settings": settings})
            return
        try:
            known = _without_labelling(read_json(path)["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); write to another --out") from error
        if settings_hash(known) != self.hash:
            changed = sorted(k for k in known.keys() | settings.keys() if known.get(k) != settings.get(k))
            differences = "; ".join(f"{k}: {known.get(k)!r} there, {settings.get(k)!r} now" for k in changed)
            raise ValueError(
                f"{self.folder} holds records made with other settings ({differences}); "
                "use those again, or write to another --out"
            )

    def append(self, shard: int, record: dict[str, Any]) -> None:
        """Write one record."""
        self._append(self._shard_path(shard), record)

    def reject(self, row_id: str, reason: str) -> None:
        """Set a row aside."""
        self._append(self.folder / "rejected.jsonl", {"id": row_id, "reason": reason})

    def forget_rejected(self, kept: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Make the rows set aside available again, with those of their records that ``kept`` returns.

        If the process is killed during this call, the rows stay set aside and every shard stays intact.
        """
        rejected = self.rejected()
        if not rejected:
            return
        for shard in range(self.last_shard() + 1):
            records = self.records(shard)
            known = by_id(record for record in records if record["id"] in rejected)
            stay = {row_id: kept(of_row) for row_id, of_row in known.items()}
            if stay != known:
                left = [r for r in records if r["id"] not in rejected or r in stay[r["id"]]]
                write_json_lines(self._shard_path(shard), left)
        (self.folder / "rejected.jsonl").unlink(missing_ok=True)

    def close(self) -> None:
        """Flush everything to disk and release the folder."""
        for file in self._files.values():
            os.fsync(file.fileno())
            file.close()
        self._files.clear()
        self._lock.close()

    def __enter__(self) -> "StageStore":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= 64:  # the oldest shard is probably finished; if not, it is opened again
                self._files.pop(next(iter(self._files))).close()
            cut_torn_line(path)
            file = self._files[path] = open(path, "ab", buffering=0)  # noqa: SIM115 (kept open)
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if file.write(line) != len(line):
            raise OSError(f"{path}: only a part of a line could be written (is the disk full?)")


def _without_labelling(settings: dict[str, Any]) -> dict[str, Any]:
    """A manifest's settings without those of how hits become labels, which earlier versions wrote too."""
    if not isinstance(settings.get("monte_carlo"), dict):
        return settings
    free = ("threshold", "stop_at_first_miss")
    return settings | {"monte_carlo": {k: v for k, v in settings["monte_carlo"].items() if k not in free}}


def by_id(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of each row, in the order they were written."""
    known: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        known.setdefault(record["id"], []).append(record)
    return known
