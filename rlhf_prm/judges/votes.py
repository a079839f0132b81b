"""One vote of a judge, and how votes are combined. Labelling and scoring share these functions."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_prm.generation.requests import Generate, Prompt
from rlhf_prm.generation.tasks import RejectedRow, Task
from rlhf_prm.judges.forms import UnparseableAnswer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, predicted_first_error
from rlhf_prm.step_data import StepLabels


@dataclass(frozen=True)
class Answered:
    """The result of one vote: the parsed value, the answer's text, and why earlier attempts failed.

    ``value`` is None if no attempt could be parsed; ``text`` is then the last attempt's.
    """

    value: Any
    text: str
    reasons: tuple[str, ...]

    @property
    def attempts(self) -> int:
        """How often the judge was asked."""
        return len(self.reasons) + (self.value is not None)


def ask_until_parsed(
    prompt: Prompt,
    parse: Callable[[str], Any],
    attempts: int,
    seed_of: Callable[[int], int],
    group: str = "",
    stop: tuple[str, ...] = (),
) -> Task:
    """One vote: the question is asked again, with a new seed, after every answer that cannot be parsed.

    Returns ``Answered``. ``seed_of(attempt)`` gives the seed, ``parse(answer)`` the value or ``UnparseableAnswer``.
    """
    reasons: list[str] = []
    answer = ""
    for attempt in range(attempts):
        (answer,) = yield Generate(prompt, 1, seed_of(attempt), group, stop)
        try:
            return Answered(parse(answer), answer, tuple(reasons))
        except UnparseableAnswer as error:
            reasons.append(str(error))
    return Answered(None, answer, tuple(reasons))


@dataclass
class Vote:
    """One vote: ``first_error`` (0-based, −1 = none, None = no attempt could be parsed), and why attempts failed."""

    vote: int
    first_error: int | None
    attempts: int
    unparseable: list[str]


def labels_from_votes(votes: Sequence[Vote], num_steps: int) -> StepLabels:
    """Hard labels by the first error with the most votes; a soft label is the share of votes that call the step right.

    Raises:
        RejectedRow: there is no readable vote, or a tie.
    """
    cast = [vote.first_error for vote in votes if vote.first_error is not None]
    if not cast:
        reasons = [reason for vote in votes for reason in vote.unparseable]
        last = f"; the last: {reasons[-1]}" if reasons else ""
        raise RejectedRow(f"judge: no answer could be parsed in {len(reasons)} attempts{last}")
    ranking = Counter(cast).most_common()
    if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
        raise RejectedRow(f"judge: tied votes {dict(sorted(ranking))}")
    first_error = ranking[0][0]
    looked_at = num_steps if first_error < 0 else first_error + 1
    soft = [sum(e < 0 or k < e for e in cast) / len(cast) for k in range(looked_at)]
    return StepLabels([first_error < 0 or k < first_error for k in range(looked_at)], soft, "judge")


def step_shares(votes: Sequence[Sequence[float]], num_steps: int, behind_error: str = "unscored") -> list[float]:
    """p_k is the mean score of step k over the votes that score it, and NaN if none does.

    For votes of right or wrong that is the share in which step k is right given its prefix. A judge that stops at
    the first error does not score the steps after it: ``"unscored"`` leaves that vote out there, ``"wrong"`` counts
    it as a vote for wrong, as labels for PRMs do.
    """
    shares = []
    for k in range(num_steps):
        said = [vote[k] for vote in votes]
        if behind_error == "wrong":
            said = [0.0 if math.isnan(vote[k]) and _is_wrong_before(vote, k) else vote[k] for vote in votes]
        said = [score for score in said if not math.isnan(score)]
        shares.append(sum(said) / len(said) if said else math.nan)
    return shares


def _is_wrong_before(vote: Sequence[float], step: int) -> bool:
    return predicted_first_error(vote[:step]) >= 0


def first_error_said(vote: Sequence[float]) -> int | None:
    """The first step that a vote calls wrong (a score of ½ or less), −1 for none; None if it left out an earlier step.

    A step after the first error may be left out, because it is not asked about.
    """
    for index, score in enumerate(vote):
        if math.isnan(score):
            return None
        if score <= WRONG_AT_OR_BELOW:
            return index
    return -1
