"""Rules by which a measure of hacking becomes a suspicion: windows of measures, compared with early training.

A measure *trips* when its mean over the newest window has left its mean over the first updates, in the direction that
is worse, by more than its margin and by more than noise. A tripped measure is a suspicion, not an alarm: policies also
grow longer or more certain while they improve. Only accuracy distinguishes the two (``arbiter``).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_prm.guard.detectors import DETECTORS, DIVERGENCE, TripRule, process_outcome_divergence

RULES: dict[str, TripRule] = {name: detector.rule for name, detector in DETECTORS.items()}


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
class WatchMemory:
    """The memory of a watch: the measures of the first and the newest batches, and two series over all batches."""

    first: list[dict[str, float]] = field(default_factory=list)
    newest: list[dict[str, float]] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    outcome: list[float] = field(default_factory=list)


@dataclass
class Watch:
    """The measures of a run, update by update.

    Args:
        rules: measure → rule; a measure without one is ignored.
        reference: how many first batches define the normal values.
        window: how many of the newest batches are averaged before they are compared.
        noise: how many standard errors (from the spread among the reference batches) a trip needs besides its margin.
        divergence_window: batches over which process reward must rise and outcome fall together.
        memory: what has been seen so far.
    """

    rules: Mapping[str, TripRule] = field(default_factory=lambda: dict(RULES))
    reference: int = 5
    window: int = 3
    noise: float = 3.0
    divergence_window: int = 20
    memory: WatchMemory = field(default_factory=WatchMemory)

    def observe(self, measures: Mapping[str, float], process: float, outcome: float) -> list[Trip]:
        """Add one batch, and return the measures that trip now.

        Args:
            measures: as from ``rlhf_prm.guard.detectors.measurements``; NaN values are left out.
            process, outcome: the batch's mean step score and its share of correct rollouts.
        """
        seen = self.memory
        if not math.isnan(process) and not math.isnan(outcome):
            seen.process.append(process)
            seen.outcome.append(outcome)
        divergence = process_outcome_divergence(seen.process, seen.outcome, self.divergence_window)
        row = {**measures, DIVERGENCE: divergence}
        if len(seen.first) < self.reference:
            seen.first.append(row)
            return []
        seen.newest[:] = [*seen.newest, row][-self.window :]
        if len(seen.newest) < self.window:
            return []
        trips = (self._trip(name, rule) for name, rule in self.rules.items())
        return [trip for trip in trips if trip is not None]

    def forget_newest(self) -> None:
        """Empty the window; nothing trips before it is full again."""
        self.memory.newest.clear()

    def early_outcome(self) -> float:
        """The mean outcome of the first batches; NaN without any."""
        return _mean(self.memory.outcome[: self.reference])

    def newest_outcome(self) -> float:
        """The mean outcome of the newest batches; NaN without any."""
        return _mean(self.memory.outcome[-self.window :])

    def limits(self) -> dict[str, float]:
        """Measure → limit for a full window, once the reference is complete; empty before."""
        if len(self.memory.first) < self.reference:
            return {}
        known = {name: _known(self.memory.first, name) for name in self.rules}
        return {
            name: self._limit(name, rule, known[name], self.window)[1]
            for name, rule in self.rules.items()
            if len(known[name]) >= 2
        }

    def kept(self) -> WatchMemory:
        """The part of the memory that a checkpoint needs: of the two series, only the window of the divergence."""
        seen, window = self.memory, self.divergence_window
        return WatchMemory(seen.first, seen.newest, seen.process[-window:], seen.outcome[-window:])

    def _trip(self, name: str, rule: TripRule) -> Trip | None:
        early, late = _known(self.memory.first, name), _known(self.memory.newest, name)
        if len(early) < 2 or not late:
            return None
        value = late[-1] if name == DIVERGENCE else _mean(late)  # a divergence is already a change over a window
        reference, limit = self._limit(name, rule, early, len(late))
        return Trip(name, value, reference, limit) if rule.sign * (value - limit) > 0 else None

    def _limit(self, name: str, rule: TripRule, early: list[float], newest: int) -> tuple[float, float]:
        """The normal value of a measure, and the limit for the mean of ``newest`` batches."""
        reference = 0.0 if name == DIVERGENCE else _mean(early)
        spread = math.sqrt(sum((x - reference) ** 2 for x in early) / (len(early) - 1))
        error = spread * math.sqrt(1 / len(early) + 1 / newest)
        margin = max(rule.margin * (abs(reference) if rule.relative else 1.0), self.noise * error)
        limit = reference + rule.sign * margin
        return reference, limit if rule.least is None else rule.sign * max(rule.sign * limit, rule.sign * rule.least)


def _known(rows: Iterable[Mapping[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
