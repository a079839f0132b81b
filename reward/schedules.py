"""A number that changes over training, for example to anneal a process weight."""

import math
from collections.abc import Mapping
from typing import Any

KINDS = ("linear", "cosine")
NEEDED = {"start", "end", "updates"}
KEYS = NEEDED | {"kind"}


def is_schedule(value: Any) -> bool:
    """Whether a mapping has a key of a schedule; any other is a value of its own."""
    return isinstance(value, Mapping) and not KEYS.isdisjoint(value)


def scheduled(value: Any, step: int) -> float:
    """``value`` at optimizer update ``step``.

    Args:
        value: a number (constant), or ``{"start": a, "end": b, "updates": n, "kind": "linear" | "cosine"}``: from a at
            update 0 to b at update n, and b from then on. ``kind`` defaults to linear; cosine is half a period.
        step: the number of optimizer updates done, TRL's ``global_step``.

    Raises:
        ValueError: ``value`` is neither a number nor such a mapping, or its kind is unknown.
    """
    if _is_number(value):
        return float(value)
    if not isinstance(value, Mapping):
        raise ValueError(
            f"schedule: got {value!r}, expected a number or {{start, end, updates, kind}} (YAML reads 1e-3 as text: "
            "write 1.0e-3)"
        )
    if set(value) - KEYS or NEEDED - set(value):
        raise ValueError(f"schedule: got keys {sorted(value)}, expected start, end, updates and, if wanted, kind")
    for key in ("start", "end", "updates"):
        if not _is_number(value[key]):
            raise ValueError(f"schedule: got {key} = {value[key]!r}, expected a number")
    kind = value.get("kind", "linear")
    if kind not in KINDS:
        raise ValueError(f"schedule: got kind {kind!r}, expected one of {', '.join(KINDS)}")
    if value["updates"] < 1:
        raise ValueError(f"schedule: got updates = {value['updates']}, expected ≥ 1")
    done = min(max(step / value["updates"], 0.0), 1.0)
    if kind == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return float(value["start"] * (1 - done) + value["end"] * done)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
