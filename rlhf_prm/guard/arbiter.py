"""Decides by accuracy whether a suspicion is an alarm.

A suspicion becomes an alarm when accuracy has fallen, or has failed to rise for as long as ``patience``. A fall is an
alarm without a suspicion too.
"""

import math
from dataclasses import dataclass

HELD_OUT = "held_out_accuracy"  # the detector that is named if accuracy itself has fallen


@dataclass
class Arbiter:
    """Decides on a suspicion by accuracy: it has fallen, is stagnant, or clears the suspicion.

    Fallen: below the start by more than noise, or by more than ``drop`` below the best so far. The two differ because
    accuracy fluctuates while it rises: outcome-only runs fell by up to 0.28 of their best and recovered.

    Args:
        problems: how many problems each accuracy was measured on, for its standard error.
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
    kept: float = math.nan  # of the weights that a rollback would restore
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
