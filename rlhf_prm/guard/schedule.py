"""Decides when a guard measures accuracy, which costs an evaluation."""

from dataclasses import dataclass

from rlhf_prm.guard.state import GuardState


@dataclass(frozen=True)
class Schedule:
    """Updates between two measurements of accuracy.

    Args:
        every: while something is suspected, or accuracy falls; quiet_every: otherwise.

    Raises:
        ValueError: one of them below 1.
    """

    every: int = 2
    quiet_every: int = 6

    def __post_init__(self) -> None:
        if min(self.every, self.quiet_every) < 1:
            raise ValueError(
                f"HackGuard: got every={self.every}, quiet_every={self.quiet_every}, expected both numbers of updates "
                "≥ 1"
            )

    def is_due(self, state: GuardState, update: int, *, suspicious: bool) -> bool:
        """Whether to ask at this update."""
        waited = self.every if suspicious or state.arbiter.sinking else self.quiet_every
        return update - state.asked >= waited and update >= state.quiet_until

    def note(self, state: GuardState, update: int, *, suspicious: bool) -> int | None:
        """Record a measurement; returns how many updates the same suspicion has lasted since the last one.

        A suspicion that comes back after a while is another one, and has lasted 0 updates.
        """
        state.asked = update
        if not suspicious:
            return None
        since = update - state.suspected
        state.suspected = update
        return since if since <= 2 * self.every else 0
