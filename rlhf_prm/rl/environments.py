"""What the environments of a batch report of each turn: ``turn_rewards`` and ``state_keys``, beside TRL's own methods.

An environment of TRL's ``environment_factory`` may have two optional methods of ours. Neither is a tool.

- ``turn_rewards() -> list[float]``: what its tools have earned so far, in order; NaN = says nothing.
- ``state_keys() -> list[str]``: what the policy saw before each turn so far; its last entry is the present state.

Both are asked before every turn and at the end. What ``turn_rewards`` has grown by between two turns belongs to the
turn that was written in between: NaN where it has not grown (the policy called a tool that there is not, say), the mean
where it has grown by several numbers (the policy called several tools at once). So a policy that calls wrongly, or
twice, never moves the rewards of other turns.

A ``rollout_func`` tells the same in its output, as ``turn_rewards`` and ``state_keys``: one list per rollout, with one
entry per turn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OWN_METHODS = ("turn_rewards", "state_keys")


@dataclass(frozen=True)
class Reported:
    """What an environment says of one rollout: one entry per turn; None where it has not the method."""

    rewards: list[float] | None = None
    keys: list[str | None] | None = None


def reported_by_rollout_func(output: Mapping[str, Any], turns: Sequence[int]) -> list[Reported]:
    """What the output of a ``rollout_func`` says of turns: ``turn_rewards`` and ``state_keys``, one entry per turn.

    Args:
        turns: how many turns of the policy each rollout has.

    Raises:
        ValueError: not one entry for each turn of each rollout.
    """
    columns = {}
    for name in OWN_METHODS:
        values = output.get(name)
        columns[name] = [None] * len(turns) if values is None else values
        got = None if values is None else [len(row) for row in values]
        if got is not None and got != list(turns):
            raise ValueError(f"rollout_func: got {name} for {got} turns, expected one entry per turn: {list(turns)}")
    return [Reported(*row) for row in zip(columns["turn_rewards"], columns["state_keys"], strict=True)]


class EnvironmentReports:
    """Asks the environments of one batch, one per rollout, before every turn."""

    def __init__(self, environments: Sequence[Any]) -> None:
        self._records = [_Record(environment) for environment in environments]

    def before_turn(self) -> None:
        """To be called before the policy is sampled from, for whichever rollouts."""
        for record in self._records:
            record.look()

    def of_rollouts(self, turns: Sequence[int]) -> list[Reported]:
        """What they say now that the rollouts have ended, which have so many turns of the policy.

        Raises:
            ValueError: rewards that are no numbers.
        """
        if not self._records:
            return [Reported() for _ in turns]
        return [record.reported(count) for record, count in zip(self._records, turns, strict=True)]


@dataclass
class _Record:
    environment: Any
    counts: list[int] = field(default_factory=list)  # of rewards, before each turn
    keys: list[str | None] = field(default_factory=list)  # before each turn

    def look(self) -> None:
        if hasattr(self.environment, "turn_rewards"):
            self.counts.append(len(self.environment.turn_rewards()))
        if hasattr(self.environment, "state_keys"):
            known = self.environment.state_keys()
            self.keys.append(known[-1] if known else None)

    def reported(self, turns: int) -> Reported:
        return Reported(
            self._rewards(turns) if hasattr(self.environment, "turn_rewards") else None,
            self.keys[:turns] if hasattr(self.environment, "state_keys") else None,
        )

    def _rewards(self, turns: int) -> list[float]:
        paid = self.environment.turn_rewards()
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in paid):
            raise ValueError(
                f"{type(self.environment).__name__}.turn_rewards: got {paid}, expected numbers (NaN = says nothing)"
            )
        # What came after the last turn belongs to it, also where TRL had no room left for the tool's result.
        ends = [*self.counts[1:turns], len(paid)]
        return [_mean(paid[first:end]) for first, end in zip(self.counts, ends, strict=False)]


def _mean(values: list[float]) -> float:
    known = [float(value) for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
