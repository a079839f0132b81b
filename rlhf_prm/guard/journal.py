"""The guard's files in the run's folder: its decisions with their evidence, and the limits that the report draws."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_prm.files import read_json_lines, write_json, write_json_lines
from rlhf_prm.guard.rules import Trip

LOG_FILE, LIMITS_FILE = "hack_guard.jsonl", "hack_limits.json"
logger = logging.getLogger(__name__)


class Journal:
    """``hack_guard.jsonl``, one line per decision, and ``hack_limits.json``; the main process alone writes and reads.

    Another process would read it half-written: for it the log is empty.
    """

    def __init__(self, folder: Path, is_main_process: bool) -> None:
        self.folder, self.is_main_process = folder, is_main_process

    def begin(self) -> None:
        """An empty log."""
        self._write([])

    def go_on_from(self, update: int) -> None:
        """Drop entries that a killed run wrote after the checkpoint of ``update``."""
        self._write([entry for entry in self.entries() if entry["step"] <= update])

    def entries(self) -> list[dict[str, Any]]:
        """The decisions so far."""
        path = self.folder / LOG_FILE
        if not self.is_main_process or not path.exists():
            return []
        return read_json_lines(path)

    def add(
        self,
        update: int,
        trips: Sequence[Trip],
        verdict: str,
        action: str,
        accuracies: Mapping[str, float],
        process_scale: float,
    ) -> None:
        """Write one decision; an action is also logged as a warning."""
        entry = {
            "step": update,
            "verdict": verdict,
            "action": action,
            "detector": ", ".join(trip.detector for trip in trips),
            "evidence": "; ".join(str(trip) for trip in trips),
            **{name: round(value, 4) for name, value in accuracies.items()},
            "process_scale": process_scale,
        }
        if action not in ("none", "off"):
            logger.warning("HackGuard at update %d: accuracy %s, %s (%s)", update, verdict, action, entry["evidence"])
        self._write([*self.entries(), entry])

    def write_limits(self, limits: Mapping[str, float]) -> None:
        """The detectors' limits."""
        if self.is_main_process:
            write_json(self.folder / LIMITS_FILE, limits)

    def _write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if self.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json_lines(self.folder / LOG_FILE, entries)
