"""A cache of verdicts by problem and steps; the least recently used are dropped first."""

from collections.abc import Hashable
from typing import Any


class VerdictCache:
    """A mapping that keeps the ``size`` most recently used entries; 0 keeps none.

    Raises:
        ValueError: the size is negative.
    """

    def __init__(self, size: int) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"cache: got {size!r}, expected a number of verdicts to keep, 0 for none")
        self.size = size
        self._entries: dict[Hashable, Any] = {}

    def get(self, key: Hashable) -> Any | None:
        """The entry, which becomes the newest; None if there is none."""
        found = self._entries.pop(key, None)
        if found is not None:
            self._entries[key] = found
        return found

    def put(self, key: Hashable, value: Any) -> None:
        """Add an entry; if the cache is full, the oldest is dropped."""
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self.size:
            self._entries.pop(next(iter(self._entries)))

    def __len__(self) -> int:
        return len(self._entries)
