"""What a labelling task asks for. Tasks are plain Python generators that do no input or output themselves.

A task yields one request at a time, is sent its answer, and returns its result. ``drivers`` run many of them at once:
in batches on an in-process generator, or concurrently on endpoints. So every labelling method is written once.
"""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

Prompt = str | list[dict[str, str]]
"""Raw text to continue, or chat messages to answer."""


@dataclass(frozen=True)
class Generate:
    """Answer: ``n`` continuations of ``prompt`` (``list[str]``).

    Requests of one ``group`` begin alike: an endpoint's prefix cache serves them best on one host.
    """

    prompt: Prompt
    n: int
    seed: int
    group: str = ""


@dataclass(frozen=True)
class Verify:
    """Answer: one ``Verdict`` per completion against the gold answer ``solution``."""

    completions: list[str]
    solution: str


@dataclass(frozen=True)
class Emit:
    """Hand a finished part of the work to whoever stores it. Answer: None."""

    record: dict[str, Any]


Task = Generator[Generate | Verify | Emit, Any, Any]


class RejectedRow(ValueError):
    """This row cannot be labelled, and why; the others go on."""


class GenerationError(RejectedRow):
    """The generator cannot serve this prompt (too long, refused by the server)."""


@dataclass(frozen=True)
class Rejection:
    """The result of a task that raised ``RejectedRow``."""

    reason: str


def unit_seed(seed: int, *parts: str | int) -> int:
    """A seed in [0, 2³¹) for one unit of work: the same on every machine and in every order of execution."""
    digest = hashlib.blake2b("\x1f".join(map(str, (seed, *parts))).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
