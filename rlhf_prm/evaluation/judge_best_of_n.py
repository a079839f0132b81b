"""A judge chooses among n samples: by the share of right steps of each, or by a knock-out (arXiv 2501.07301, B.5)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.best_of_n import expected_best_of, expected_majority, pass_at
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.judges.budget import OVER_BUDGET
from rlhf_prm.judges.drive import drive
from rlhf_prm.judges.pairwise import Knockout, knockout
from rlhf_prm.judges.scorer import JudgeScorer
from rlhf_prm.statistics import bootstrap_interval

WAYS = ("pointwise", "pairwise")


@dataclass(frozen=True)
class JudgeChoice:
    """Settings: the ways of choosing, ``n``, attempts per comparison, and the seed."""

    n: int = 8
    ways: Sequence[str] = WAYS
    attempts: int = 2
    seed: int = 0
    separator: str = "\n\n"


def judge_best_of_n(
    judge: JudgeScorer, samples: Sequence[SampledProblem], settings: JudgeChoice | None = None
) -> dict[str, dict[str, Any]]:
    """Accuracy of ``pass@n``, ``maj@n`` and of what the judge chooses, all on the same n samples of each problem.

    ``pointwise@n``: the highest share of right steps (the mean of the judge's step scores, steps behind a first error
    counted as wrong); ties are broken at random. ``pairwise@n``: a knock-out of n − 1 comparisons. Where a problem has
    more than n samples, n of them are drawn. Means over problems, with 95 % bootstrap intervals; ``questions`` counts
    the questions to the judge, ``unreadable`` the comparisons or solutions without a readable answer.

    Raises:
        ValueError: a problem has fewer than n samples, or the judge's budget is too small.
    """
    settings = settings or JudgeChoice()
    drawn = [_subset(sample, settings.n, settings.seed, index) for index, sample in enumerate(samples)]
    seed, n = settings.seed, settings.n
    rows = {
        "mean@1": [sum(one.correct) / n for one in drawn],
        f"pass@{n}": [pass_at(one.correct, n) for one in drawn],
        f"maj@{n}": [expected_majority(one.answers, one.correct, n, seed=seed) for one in drawn],
    }
    counts: dict[str, dict[str, int]] = {}
    for way, measure in (("pointwise", _pointwise), ("pairwise", _pairwise)):
        if way in settings.ways:
            before = judge.meter.calls
            rows[f"{way}@{n}"], unreadable = measure(judge, drawn, settings)
            counts[f"{way}@{n}"] = {"questions": judge.meter.calls - before, "unreadable": unreadable}
    results = {}
    for name, values in rows.items():
        low, high = bootstrap_interval(np.array(values), seed=seed)
        results[name] = {"mean": float(np.mean(values)), "low": low, "high": high, **counts.get(name, {})}
    return results


def _subset(sample: SampledProblem, n: int, seed: int, index: int) -> SampledProblem:
    size = len(sample.correct)
    if size < n:
        raise ValueError(f"best of {n} needs {n} samples per problem, got {size}: {sample.problem[:60]!r}")
    chosen = sorted(random.Random(f"subset {seed} {index}").sample(range(size), n))
    return replace(
        sample,
        steps=[sample.steps[i] for i in chosen],
        correct=[sample.correct[i] for i in chosen],
        answers=[sample.answers[i] for i in chosen],
        step_scores=None,
        first_errors=None,
    )


def _pointwise(judge: JudgeScorer, drawn: list[SampledProblem], settings: JudgeChoice) -> tuple[list[float], int]:
    judged = scored(drawn, judge)
    values, unreadable = [], 0
    for sample in judged:
        assert sample.step_scores is not None  # scored has just filled them in
        shares = [solution_score(scores, "mean") for scores in sample.step_scores]
        unreadable += sum(share == -np.inf for share in shares)
        values.append(expected_best_of(shares, sample.correct, settings.n))
    return values, unreadable


def _pairwise(judge: JudgeScorer, drawn: list[SampledProblem], settings: JudgeChoice) -> tuple[list[float], int]:
    tasks = (
        (
            index,
            judge.meter.metered(
                knockout(
                    sample.problem,
                    [settings.separator.join(steps) for steps in sample.steps],
                    settings.seed,
                    settings.attempts,
                )
            ),
        )
        for index, sample in enumerate(drawn)
    )
    judge.meter.begin(None)
    found: dict[int, Any] = {}
    drive(tasks, judge.generator, found.__setitem__, judge.meter.seconds_left())
    values, unreadable = [], 0
    for index, sample in enumerate(drawn):
        result = found.get(index, OVER_BUDGET)
        if result is OVER_BUDGET:
            raise ValueError(f"the judge's budget is spent before the knock-out of problem {index + 1} of {len(drawn)}")
        chose = isinstance(result, Knockout)  # if not, the host refused a question: no choice counts as a miss
        values.append(float(chose and sample.correct[result.winner]))
        unreadable += result.unreadable if chose else settings.n - 1
    return values, unreadable
