"""One pass over a run's rollouts: numbers of all of them, text of a few.

Which groups are shown is drawn without looking at them and without chance between calls: evenly spaced batches, and
groups of each by a generator with a fixed seed. Beside them stand the rollouts on which PRM and verifier disagree most.
"""

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from rlhf_prm.report.runs import Rollout, Run

SHOWN_BATCHES, SHOWN_GROUPS, SHOWN_EACH_END, SHOWN_DISAGREEMENTS = 12, 2, 2, 6
POSITIONS, SCORE_BINS = 10, 20


@dataclass(frozen=True)
class Batch:
    """What one logged batch comes to: per group the share of correct rollouts and the mean step score."""

    update: int
    group_outcomes: list[float]
    group_scores: list[float]


@dataclass(frozen=True)
class ShownGroup:
    """The best and the worst rollouts of one prompt; ``size`` is how many there were."""

    update: int
    prompt: str
    size: int
    correct: int
    best: list[Rollout]
    worst: list[Rollout]


@dataclass
class Gathered:
    """Numbers over all rollouts and the sample of text that the page shows."""

    rollouts: int = 0
    batches: list[Batch] = field(default_factory=list)
    groups: list[ShownGroup] = field(default_factory=list)
    verdicts: Counter = field(default_factory=Counter)
    mean_scores: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    by_position: dict[bool, list[list[float]]] = field(
        default_factory=lambda: {right: [[] for _ in range(POSITIONS)] for right in (True, False)}
    )
    overrated: list[Rollout] = field(default_factory=list)
    underrated: list[Rollout] = field(default_factory=list)


def gather(run: Run) -> Gathered:
    """Read every batch of the run once."""
    gathered = Gathered()
    shown = set(evenly_spaced(len(run.files), SHOWN_BATCHES))
    tops: dict[bool, list] = {True: [], False: []}
    for index, batch in enumerate(run.rollouts()):
        groups = [list(rows) for _, rows in groupby(batch, key=lambda rollout: rollout.group)]
        gathered.batches.append(
            Batch(
                batch[0].update,
                [_mean([r.outcome for r in rows]) for rows in groups],
                [_mean([r.mean_score for r in rows]) for rows in groups],
            )
        )
        for rollout in batch:
            _count(gathered, rollout)
            _keep_disagreement(tops, rollout, gathered.rollouts)
        if index in shown:
            for position in sorted(random.Random(index).sample(range(len(groups)), min(SHOWN_GROUPS, len(groups)))):
                gathered.groups.append(_shown_group(groups[position]))
    gathered.overrated = [entry[-1] for entry in sorted(tops[False], key=lambda entry: -entry[0])]
    gathered.underrated = [entry[-1] for entry in sorted(tops[True], key=lambda entry: -entry[0])]
    return gathered


def evenly_spaced(total: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 … total − 1, the first and the last among them."""
    if total <= most:
        return list(range(total))
    return [round(i * (total - 1) / (most - 1)) for i in range(most)]


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _count(gathered: Gathered, rollout: Rollout) -> None:
    gathered.rollouts += 1
    gathered.verdicts[rollout.verdict] += 1
    right = rollout.right
    if right is None or math.isnan(rollout.mean_score):
        return
    gathered.mean_scores[right].append(rollout.mean_score)
    for k, score in enumerate(rollout.scores):
        if not math.isnan(score):
            gathered.by_position[right][k * POSITIONS // len(rollout.scores)].append(score)


def _keep_disagreement(tops: dict[bool, list], rollout: Rollout, tie: int) -> None:
    """Wrong answers with the highest mean score, right answers with the lowest."""
    right = rollout.right
    if right is None or math.isnan(rollout.mean_score):
        return
    entry = (-rollout.mean_score if right else rollout.mean_score, -tie, rollout)
    if len(tops[right]) < SHOWN_DISAGREEMENTS:
        heapq.heappush(tops[right], entry)
    else:
        heapq.heappushpop(tops[right], entry)


def rank(rollout: Rollout) -> float:
    """Best and worst go by the mean step advantage; without one by the logged advantage, the outcome or the score."""
    for value in (_mean(rollout.advantages), rollout.advantage, rollout.outcome, rollout.mean_score):
        if not math.isnan(value):
            return value
    return 0.0


def _shown_group(rows: list[Rollout]) -> ShownGroup:
    ordered = sorted(rows, key=rank, reverse=True)
    each = min(SHOWN_EACH_END, max(1, len(ordered) // 2))
    best = ordered[:each]
    worst = ordered[each:][-each:]
    correct = sum(rollout.right is True for rollout in rows)
    return ShownGroup(rows[0].update, rows[0].prompt, len(rows), correct, best, worst)
