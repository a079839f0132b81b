"""The requests of labelling tasks. Tasks are plain Python generators that do no input or output themselves.

A task yields one request at a time, is sent its answer, and returns its result. ``drivers`` run many of them at once:
in batches on an in-process generator, or concurrently on endpoints. Every labelling method is therefore written once.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from rlhf_prm.generation.requests import Choose, Generate


@dataclass(frozen=True)
class Verify:
    """Answer: one ``Verdict`` per completion against the gold answer ``solution``."""

    completions: list[str]
    solution: str


@dataclass(frozen=True)
class Emit:
    """Store a record of finished work. Answer: None."""

    record: dict[str, Any]


Task = Generator[Generate | Choose | Verify | Emit, Any, Any]


class RejectedRow(ValueError):
    """This row cannot be labelled; the message says why. Other rows are not affected."""


@dataclass(frozen=True)
class Rejection:
    """The result of a task that raised ``RejectedRow``."""

    reason: str
