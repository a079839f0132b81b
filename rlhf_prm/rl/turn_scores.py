"""Scores of whole turns, from an environment, a judge, a PRM or a function, and how they become step scores."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reward.dotted import resolve
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.rl.environments import Reported
from rlhf_prm.rl.turns import CutRollout
from rlhf_prm.steps import ToolResult

ENVIRONMENT = "environment"
# (score of the step, score of its turn, whether the step is the turn's last) → merged; a turn without a score changes
# nothing, and "mean" and "min" leave NaN where the step has none.
RULES: dict[str, Callable[[float, float, bool], float]] = {
    "replace": lambda step, turn, last: turn,
    "last": lambda step, turn, last: turn if last else step,
    "mean": lambda step, turn, last: (step + turn) / 2,
    "min": lambda step, turn, last: step if math.isnan(step) else min(step, turn),
}
NEEDS_STEP_SCORES = ("mean", "min")
TurnFunction = Callable[[list[str], list[list[str]]], list[list[float]]]


@dataclass(frozen=True)
class TurnScores:
    """Where the scores of turns come from, and how they become scores of steps.

    Args:
        source: ``ENVIRONMENT``, a scorer (``score(problems, turns)``: a PRM or a judge that reads turns as it would
            steps), or a function of that signature. It reads the policy's turns with the tool results between them as
            ``ToolResult``; it gives one score for each, and those of tool results are not looked at.
        rule: a name in ``RULES``.
        low, high: the range of what the source says, which becomes [0, 1].
    """

    source: str | StepScorer | TurnFunction
    rule: str = "replace"
    low: float = 0.0
    high: float = 1.0

    @property
    def from_environment(self) -> bool:
        return self.source == ENVIRONMENT

    def of_turns(
        self, problems: list[str], rollouts: Sequence[CutRollout], reports: Sequence[Reported]
    ) -> list[list[float]]:
        """One score in [0, 1] per turn of the policy; NaN = nothing is known.

        Raises:
            ValueError: not one score per turn, or one outside the range.
        """
        if self.from_environment:
            if any(report.rewards is None for report in reports):
                raise ValueError("turn_scores: got a rollout without turn_rewards, expected a number for every turn")
            raw = [report.rewards or [] for report in reports]
        else:
            score = getattr(self.source, "score", self.source)
            shown = [rollout.shown_turns for rollout in rollouts]
            raw = of_the_policy(score(problems, shown), shown, "turn_scorer")
        for row, rollout in zip(raw, rollouts, strict=True):
            if len(row) != len(rollout.turns):
                raise ValueError(f"turn scores: got {len(row)} for {len(rollout.turns)} turns, expected one for each")
        return [[self._in_range(score) for score in row] for row in raw]

    def merged(self, step_scores: Sequence[float], turn_of_step: Sequence[int], turns: Sequence[float]) -> list[float]:
        """The step scores with those of the turns in them."""
        rule, merged = RULES[self.rule], []
        for k, (step, turn) in enumerate(zip(step_scores, turn_of_step, strict=True)):
            last = k + 1 == len(turn_of_step) or turn_of_step[k + 1] != turn
            merged.append(step if math.isnan(turns[turn]) else rule(step, turns[turn], last))
        return merged

    def _in_range(self, score: float) -> float:
        if not math.isnan(score) and not self.low <= score <= self.high:
            raise ValueError(
                f"turn scores: got {score:g}, expected between {self.low:g} and {self.high:g}; turn_range: "
                "[lowest, highest] says what they may be"
            )
        return (score - self.low) / (self.high - self.low)


def turn_scores(
    args: Any, turn_scorer: Any, has_step_scorer: bool, environments: Sequence[Any], *, own_rollouts: bool = False
) -> TurnScores | None:
    """What the settings and the trainer's arguments ask for; None = no scores of turns.

    Args:
        args: a trainer's config.
        turn_scorer: the trainer's argument.
        environments: an instance of every kind of environment, none = there is no environment.
        own_rollouts: a ``rollout_func`` tells the turn rewards.

    Raises:
        ValueError: two sources, a rule without a source or without the step scores it merges with, a method that reads
            no step scores, or environments that say nothing of turns.
    """
    if turn_scorer is not None and args.turn_scores is not None:
        raise ValueError(f"turn_scores: got {args.turn_scores!r} beside turn_scorer=, expected one of the two")
    if turn_scorer is None and args.turn_scores is None:
        for name, default in (("turn_rule", "replace"), ("turn_range", [0.0, 1.0])):
            if getattr(args, name) != default:
                raise ValueError(f"{name}: got {getattr(args, name)!r} without turn_scores or turn_scorer=")
        return None
    refuse_unread(args, turn_scorer or args.turn_scores)
    source = turn_scorer
    if turn_scorer is None:
        source = resolve(args.turn_scores, {ENVIRONMENT: ENVIRONMENT}, "turn_scores")
    if source == ENVIRONMENT:
        _check_environments(environments, own_rollouts)
    elif not callable(getattr(source, "score", source)):
        raise ValueError(f"turn_scorer: got {source!r}, expected score(problems, turns), or a function like it")
    if args.turn_rule in NEEDS_STEP_SCORES and not has_step_scorer:
        raise ValueError(
            f"turn_rule: got {args.turn_rule!r} without step_scorer=, expected step scores to merge with; 'replace' "
            "and 'last' need none"
        )
    return TurnScores(source, args.turn_rule, *args.turn_range)


def refuse_unread(args: Any, source: Any) -> None:
    """Raise a ValueError if the settings of a run let no step score reach an advantage.

    Turn scores are merged into step scores, so they would change nothing.
    """
    if args.reads_tokens_only:
        raise ValueError(
            f"turn_scores: got {source!r} beside a method or shaping that reads token scores, expected one that reads "
            "step scores: turn scores are merged into those, so here they would change nothing"
        )


def of_the_policy(scores: list[list[float]], shown: list[list[str]], who: str) -> list[list[float]]:
    """The scores without those of tool results.

    Raises:
        ValueError: not one score for each text.
    """
    got, wanted = [len(row) for row in scores], [len(row) for row in shown]
    if got != wanted:
        raise ValueError(f"{who}: got {got} scores, expected one per step: {wanted}")
    return [
        [score for score, text in zip(row, texts, strict=True) if not isinstance(text, ToolResult)]
        for row, texts in zip(scores, shown, strict=True)
    ]


def _check_environments(environments: Sequence[Any], own_rollouts: bool) -> None:
    if not environments and not own_rollouts:
        raise ValueError(
            f"turn_scores: got {ENVIRONMENT!r} without environment_factory=, expected environments, or a rollout_func "
            "that gives turn_rewards"
        )
    for environment in environments:
        if not hasattr(environment, "turn_rewards"):
            raise ValueError(
                f"turn_scores: got {ENVIRONMENT!r}, but {type(environment).__name__} has no turn_rewards(); expected "
                "one number for every call of its tools, in order"
            )
