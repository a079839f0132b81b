"""What a labelling task asks for. Tasks are plain Python generators that do no input or output themselves.

A task yields one request at a time, is sent its answer, and returns its result. ``drivers`` run many of them at once:
in batches on an in-process generator, or concurrently on endpoints. So every labelling method is written once.
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
    """Hand a finished part of the work to whoever stores it. Answer: None."""

    record: dict[str, Any]


Task = Generator[Generate | Choose | Verify | Emit, Any, Any]


class RejectedRow(ValueError):
    """This row cannot be labelled, and why; the others go on."""


@dataclass(frozen=True)
class Rejection:
    """The result of a task that raised ``RejectedRow``."""

    reason: str
