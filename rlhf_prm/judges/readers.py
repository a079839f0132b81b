"""Readers ask a judge about a solution: one question about all of it, or one for every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Task
from rlhf_prm.judges.votes import ask_until_parsed

SCOPES = ("solution", "prefix", "dialogue")


@dataclass(frozen=True)
class Reading:
    """The result of one vote: ``scores`` of the steps it was asked about (NaN = it leaves one out), None = it cannot
    be read. ``text`` is its answer, ``unparseable`` the number of attempts that could not be read.
    """

    scores: list[float] | None
    text: str = ""
    unparseable: int = 0


@runtime_checkable
class Reader(Protocol):
    """A way to ask.

    ``scope`` says what one vote is about: ``"solution"``: all steps; ``"prefix"``: the last of the steps given;
    ``"dialogue"``: likewise, with the answers about the steps before it in view. ``verdicts`` says whether the scores
    are about right and wrong steps, so that they can become labels. ``settings`` is everything an answer depends on.
    """

    scope: str
    verdicts: bool
    settings: dict[str, Any]

    def ask(self, problem: str, steps: Sequence[str], seed: int, before: Sequence[str]) -> Task:
        """One vote on these steps; returns a ``Reading``. ``before`` holds the answers about each earlier step."""
        ...


@runtime_checkable
class Form(Protocol):
    """A question about a whole solution, and how its answer is read."""

    def messages(self, problem: str, steps: Sequence[str]) -> list[dict[str, str]]:
        """The chat to send."""
        ...

    def scores(self, problem: str, steps: Sequence[str], answer: str) -> list[float]:
        """One score per step, NaN where the answer says nothing of it; raises ``UnparseableAnswer``."""
        ...


class FormReader:
    """One question about the whole solution.

    Args:
        form: the question.
        attempts: tries per vote.
        name: of the form, for ``settings``.
        verdicts: see ``Reader``.
    """

    scope = "solution"

    def __init__(self, form: Form, attempts: int, name: str, verdicts: bool = True) -> None:
        self.form, self.attempts, self.verdicts = form, attempts, verdicts
        self.settings = {"form": name, "attempts": attempts}

    def ask(self, problem: str, steps: Sequence[str], seed: int, before: Sequence[str]) -> Task:
        """See ``Reader``."""
        answered = yield from ask_until_parsed(
            self.form.messages(problem, steps),
            lambda answer: self.form.scores(problem, steps, answer),
            self.attempts,
            seeds_from(seed),
            group=problem,
        )
        return Reading(answered.value, answered.text, len(answered.reasons))


def seeds_from(seed: int) -> Callable[[int], int]:
    """The seed of each attempt of a vote."""
    return lambda attempt: unit_seed(seed, attempt)
