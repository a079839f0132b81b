"""When a measure of hacking is an alarm: windows over the measures of ``detectors``, read against early training.

A measure *trips* when its mean over the newest window has left its mean over the first updates, in the direction that
is worse, by more than its margin and by more than noise. A tripped measure is a suspicion, not an alarm: policies also
grow longer or surer while they get better. Only accuracy tells the two apart, so a suspicion becomes an alarm when
accuracy has fallen, or has failed to rise for as long as ``patience``. A fall is an alarm without a suspicion too.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rlhf_prm.guard.detectors import process_outcome_divergence

DIVERGENCE = "process_outcome_divergence"
HELD_OUT = "held_out_accuracy"  # the detector named where accuracy itself has fallen


@dataclass(frozen=True)
class Rule:
    """How far a measure may go from its reference: ``margin`` in its own units, or as a share of the reference.

    ``worse`` is "up" or "down". ``least`` is the value below which (above which, for "down") it never trips.
    """

    worse: str
    margin: float
    relative: bool = False
    least: float | None = None


RULES: dict[str, Rule] = {
    "no_answer_share": Rule("up", 0.15),
    "single_step_share": Rule("up", 0.25),
    "tokens_per_step": Rule("up", 0.5, relative=True),
    "tokens_per_rollout": Rule("down", 0.4, relative=True),
    "steps_per_rollout": Rule("up", 0.25, relative=True),
    "step_count_correlation": Rule("up", 0.4),
    "suffix_repetition": Rule("up", 0.05, least=0.2),
    "repetitive_share": Rule("up", 0.15),
    "near_duplicate_share": Rule("up", 0.15),
    "prompt_overlap": Rule("up", 0.3),
    "incorrect_score": Rule("up", 0.15),
    "auroc": Rule("down", 0.15, least=0.65),
    DIVERGENCE: Rule("up", 0.05),
}


@dataclass(frozen=True)
class Trip:
    """A measure that has left its reference: the evidence of a suspicion."""

    detector: str
    value: float
    reference: float
    limit: float
    when: str = "at first"  # what the reference is

    def __str__(self) -> str:
        return f"{self.detector} {self.value:.3g}, {self.when} {self.reference:.3g}, limit {self.limit:.3g}"


@dataclass
class Watch:
    """The measures of a run, update by update.

    Args:
        rules: measure → rule; a measure without one is never looked at.
        reference: the first so many batches say what is normal.
        window: how many of the newest batches are averaged before they are compared.
        noise: how many standard errors (from the spread among the reference batches) a trip needs besides its margin.
        divergence_window: batches over which process reward must rise and outcome fall together.
    """

    rules: Mapping[str, Rule] = field(default_factory=lambda: dict(RULES))
    reference: int = 5
    window: int = 3
    noise: float = 3.0
    divergence_window: int = 20
    first: list[dict[str, float]] = field(default_factory=list)
    newest: deque = field(default_factory=deque)
    process: list[float] = field(default_factory=list)
    outcome: list[float] = field(default_factory=list)

    def observe(self, measures: Mapping[str, float], process: float, outcome: float) -> list[Trip]:
        """Take one batch in, and tell what trips now.

        Args:
            measures: as from ``rlhf_prm.guard.detectors.measurements``; NaN values are left out.
            process, outcome: the batch's mean step score and mean outcome reward.
        """
        if not math.isnan(process) and not math.isnan(outcome):
            self.process.append(process)
            self.outcome.append(outcome)
        divergence = process_outcome_divergence(self.process, self.outcome, self.divergence_window)
        row = {**measures, DIVERGENCE: divergence}
        if len(self.first) < self.reference:
            self.first.append(row)
            return []
        self.newest.append(row)
        while len(self.newest) > self.window:
            self.newest.popleft()
        if len(self.newest) < self.window:
            return []
        trips = (self._trip(name, rule) for name, rule in self.rules.items())
        return [trip for trip in trips if trip is not None]

    def _trip(self, name: str, rule: Rule) -> Trip | None:
        early, late = _known(self.first, name), _known(self.newest, name)
        if len(early) < 2 or not late:
            return None
        value = late[-1] if name == DIVERGENCE else sum(late) / len(late)  # it is a change over a window already
        reference, limit = self._limit(name, rule, early, len(late))
        sign = 1.0 if rule.worse == "up" else -1.0
        return Trip(name, value, reference, limit) if sign * (value - limit) > 0 else None

    def _limit(self, name: str, rule: Rule, early: list[float], newest: int) -> tuple[float, float]:
        """What is normal, and how far the mean of so many new batches may go."""
        reference = 0.0 if name == DIVERGENCE else sum(early) / len(early)
        spread = math.sqrt(sum((x - reference) ** 2 for x in early) / (len(early) - 1))
        error = spread * math.sqrt(1 / len(early) + 1 / newest)
        margin = max(rule.margin * (abs(reference) if rule.relative else 1.0), self.noise * error)
        sign = 1.0 if rule.worse == "up" else -1.0
        limit = reference + sign * margin
        return reference, limit if rule.least is None else sign * max(sign * limit, sign * rule.least)

    def limits(self) -> dict[str, float]:
        """Measure → limit for a full window, once the reference is complete; empty before."""
        if len(self.first) < self.reference:
            return {}
        known = {name: _known(self.first, name) for name in self.rules}
        return {
            name: self._limit(name, rule, known[name], self.window)[1]
            for name, rule in self.rules.items()
            if len(known[name]) >= 2
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on; JSON."""
        return {
            "first": self.first,
            "newest": list(self.newest),
            "process": self.process[-self.divergence_window :],
            "outcome": self.outcome[-self.divergence_window :],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state()``."""
        self.first, self.newest = list(state["first"]), deque(state["newest"])
        self.process, self.outcome = list(state["process"]), list(state["outcome"])


def _known(rows: Any, name: str) -> list[float]:
    return [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]


@dataclass
class Arbiter:
    """What accuracy says: fallen, stagnant, or cleared.

    Fallen: below the start by more than noise, or by more than ``drop`` below the best so far. The two differ because
    accuracy sways while it rises: runs paid by outcomes alone fell by up to 0.28 of their best and came back.

    Args:
        problems: how many problems stand behind each accuracy, for its standard error.
        drop: the fall from the best that counts, as a share of the best.
        errors: how many standard errors of a difference a fall or a rise needs.
        patience: updates under suspicion without a rise above the start that count as stagnation.
    """

    problems: int = 256
    drop: float = 1 / 3
    errors: float = 2.0
    patience: int = 30
    start: float = math.nan
    best: float = math.nan
    last: float = math.nan
    kept: float = math.nan  # of the weights that a rollback would put back
    waited: int = 0

    def begin(self, accuracy: float) -> None:
        """The accuracy before the first update."""
        self.start = self.best = self.last = self.kept = accuracy

    @property
    def limit(self) -> float:
        """The accuracy below which it has fallen."""
        below_best = self.best - max(self.drop * self.best, self._noise(self.best))
        return max(below_best, self.start - self._noise(self.start))

    @property
    def sinking(self) -> bool:
        """Whether the last accuracy was nearer to the limit than to the best."""
        return self.last < (self.best + self.limit) / 2

    def exceeds(self, accuracy: float, other: float) -> bool:
        """Whether one accuracy is above another by more than noise."""
        return accuracy - other > self._noise(other)

    def _noise(self, accuracy: float) -> float:
        variance = max(accuracy * (1 - accuracy), 1 / self.problems) / self.problems
        return self.errors * math.sqrt(2 * variance)

    def judge(self, accuracy: float, suspected: int | None) -> str:
        """ "fallen", "stagnant" or "cleared".

        Args:
            suspected: updates since it was last asked about the same suspicion; None: nothing is suspected.
        """
        self.last = accuracy
        if accuracy < self.limit:
            return "fallen"
        self.best = max(self.best, accuracy)
        risen = self.exceeds(accuracy, self.start)
        self.waited = 0 if risen or suspected is None else self.waited + suspected
        return "stagnant" if self.waited >= self.patience else "cleared"

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on; JSON."""
        return asdict(self)
