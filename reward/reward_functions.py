"""TRL reward functions for the outcome: the verifier's verdict, the format of the answer, the length.

To combine them, give TRL several of them and ``reward_weights``.
"""

import atexit
import math
import os
import re
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from reward.verifier import MathVerifier, Verdict, status_fractions
from reward.verifier.answers.extract import BOX, box_content

CLOSING_REMARK = re.compile(r"(?:\\[\])]|[\s$.!*])*")
_lock = threading.Lock()
_shared: dict[int, MathVerifier] = {}  # by process id: a forked child must not use its parent's workers


def shared_verifier() -> MathVerifier:
    """The one verifier of this process that all reward functions use. It is made on first use."""
    with _lock:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = MathVerifier()
        return _shared[os.getpid()]


@atexit.register
def _close_shared() -> None:
    if os.getpid() in _shared:
        _shared[os.getpid()].close()


def completion_texts(completions: list[str] | list[list[dict[str, str]]]) -> list[str]:
    """The texts of plain completions; of a conversational one, its last message that is not a tool's."""
    return [
        completion
        if isinstance(completion, str)
        else next(message["content"] for message in reversed(completion) if message.get("role") != "tool")
        for completion in completions
    ]


def gold_text(value: Any) -> str | None:
    """A gold answer as the text a verifier reads; None where there is none (null, or NaN in a column of numbers).

    Raises:
        ValueError: the value is neither text nor a number, for example a list of answers.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, int | float | Decimal):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    kind = type(value).__name__
    raise ValueError(f"solution: got {value!r} ({kind}), expected a gold answer as text, a number or null")


def outcome_reward(
    completions: list[str] | list[list[dict[str, str]]],
    solution: list[Any],
    log_extra: Callable[[str, list[str]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """1.0 for a right final answer, 0.0 for any other, None where the gold answer cannot be used.

    This is a TRL reward function; ``solution`` is the dataset's column. It logs ``verifier/<status>_frac``.
    """
    verdicts = shared_verifier().verify(completion_texts(completions), [gold_text(gold) for gold in solution])
    log_verdicts(verdicts, log_extra, log_metric)
    return [verdict.reward for verdict in verdicts]


def log_verdicts(
    verdicts: list[Verdict],
    log_extra: Callable[[str, list[str]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> None:
    """Write statuses and answers to TRL's completions table and metrics, if the trainer has passed those functions."""
    if log_extra is not None:
        log_extra("verifier_status", [verdict.status for verdict in verdicts])
        log_extra("answer", [verdict.answer or "" for verdict in verdicts])
    if log_metric is not None:
        for name, value in status_fractions(verdicts).items():
            log_metric(name, value)


def well_formed(text: str) -> bool:
    r"""Whether a text has exactly one ``\boxed``, which is closed, not empty, and followed only by delimiters."""
    boxes = [match.end() for match in BOX.finditer(text)]
    found = box_content(text, boxes[0]) if len(boxes) == 1 else None
    return found is not None and bool(found[0].strip()) and CLOSING_REMARK.fullmatch(text, found[1] + 1) is not None


def format_reward(completions: list[str] | list[list[dict[str, str]]], **kwargs: Any) -> list[float]:
    """A TRL reward function: 1.0 where the answer is boxed exactly once, at the end (``well_formed``); else 0.0."""
    return [float(well_formed(text)) for text in completion_texts(completions)]


def length_penalty(free: int, limit: int) -> Callable[..., list[float]]:
    """A TRL reward function: 0 up to ``free`` tokens, then linearly down to −1 at ``limit`` tokens and beyond.

    This is DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13) with L_max = limit and L_cache = limit − free.

    Raises:
        ValueError: not 0 ≤ free < limit.
    """
    if not 0 <= free < limit:
        raise ValueError(f"got free={free}, limit={limit} tokens: expected 0 ≤ free < limit")

    def overlong(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [-min(1.0, max(0.0, (len(ids) - free) / (limit - free))) for ids in completion_ids]

    overlong.__name__ = "length_penalty"
    return overlong
