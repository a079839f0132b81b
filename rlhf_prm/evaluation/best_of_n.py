"""Best-of-n: the accuracy of a policy when a PRM chooses among n of its samples.

Every number is an expectation over the subsets of size n of the N samples, exact if there is a closed form
(pass@n, best-of-n); for majority votes it is a mean over all subsets, or over 2,000 seeded ones if there are more.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

from rlhf_prm.evaluation.aggregation import AGGREGATIONS, solution_score
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.statistics import bootstrap_interval

MOST_SUBSETS = 2000


def pass_at(correct: Sequence[bool], n: int) -> float:
    """P(at least one of n samples drawn without replacement is right) = 1 − C(N−c, n)/C(N, n)."""
    wrong = len(correct) - sum(correct)
    return 1 - comb(wrong, n) / comb(len(correct), n)


def expected_best_of(scores: Sequence[float], correct: Sequence[bool], n: int) -> float:
    """P(the highest-scored of n samples drawn without replacement is right); ties are broken at random.

    A group of m equal scores with L samples below it contains the highest score of a subset with probability
    [C(L+m, n) − C(L, n)]/C(N, n), and each of its members is then equally likely.
    """
    groups: dict[float, list[bool]] = defaultdict(list)
    for score, right in zip(scores, correct, strict=True):
        groups[score].append(right)
    total, below = 0.0, 0
    for score in sorted(groups):
        members = groups[score]
        share = comb(below + len(members), n) - comb(below, n)
        total += share * sum(members) / len(members)
        below += len(members)
    return total / comb(len(scores), n)


def expected_majority(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    n: int,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> float:
    """P(the answer with most votes, or most summed ``weights``, is right); ties are broken at random.

    Answers are equal when their texts are: ``with_equal_answers`` first gives one text to all that a verifier takes for
    equal. A subset without any answer is wrong. A text counts as right if most of the
    samples that gave it were verified as right.
    """
    weights = [1.0] * len(answers) if weights is None else [max(weight, 0.0) for weight in weights]
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for answer, right in zip(answers, correct, strict=True):
        if answer is not None:
            verdicts[answer].append(right)
    right_answers = {answer for answer, given in verdicts.items() if 2 * sum(given) > len(given)}
    subsets = _subsets(len(answers), n, seed)
    return sum(_vote([(answers[i], weights[i]) for i in subset], right_answers) for subset in subsets) / len(subsets)


def _subsets(size: int, n: int, seed: int) -> list[tuple[int, ...]]:
    if comb(size, n) <= MOST_SUBSETS:
        return list(combinations(range(size), n))
    generator = random.Random(seed)
    return [tuple(generator.sample(range(size), n)) for _ in range(MOST_SUBSETS)]


def _vote(ballots: list[tuple[str | None, float]], right_answers: set[str]) -> float:
    tally: dict[str, float] = defaultdict(float)
    for answer, weight in ballots:
        if answer is not None:
            tally[answer] += weight
    if not tally:
        return 0.0
    most = max(tally.values())
    winners = [answer for answer, votes in tally.items() if votes == most]
    return sum(answer in right_answers for answer in winners) / len(winners)


RULES_OF_TARGET = {  # what a solution is chosen by: rule → aggregation of its scores
    "steps": {how: how for how in AGGREGATIONS},
    "outcome": {"rm": "last"},  # an outcome model judges the whole solution at its end
}


def problem_values(sample: SampledProblem, n: int, seed: int = 0, target: str = "steps") -> dict[str, float]:
    """Expected accuracy of one problem under every rule: mean@1, pass@n, maj@n, and for each aggregation of step scores
    best-of-n and the majority weighted by it.

    Args:
        target: ``"outcome"``: the scores are an outcome model's, and rm@n is the one rule that chooses by them.

    Raises:
        ValueError: there are fewer than n samples, or no step scores yet.
    """
    if len(sample.correct) < n:
        raise ValueError(
            f"best of {n} needs {n} samples per problem, got {len(sample.correct)}: {sample.problem[:60]!r}"
        )
    if sample.step_scores is None:
        raise ValueError("the samples have no step scores: pass them through rlhf_prm.evaluation.samples.scored first")
    values = {
        "mean@1": sum(sample.correct) / len(sample.correct),
        f"pass@{n}": pass_at(sample.correct, n),
        f"maj@{n}": expected_majority(sample.answers, sample.correct, n, seed=seed),
    }
    for rule, how in RULES_OF_TARGET[target].items():
        scores = [solution_score(steps, how) for steps in sample.step_scores]
        values[f"{rule}@{n}"] = expected_best_of(scores, sample.correct, n)
        weighted = expected_majority(sample.answers, sample.correct, n, scores, seed)
        values[f"weighted-maj-{rule}@{n}"] = weighted
    return values


def best_of_n(
    samples: Sequence[SampledProblem],
    n: int,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    target: str = "steps",
) -> dict[str, dict[str, float]]:
    """The mean of :func:`problem_values` over the problems, with a bootstrap interval over problems.

    Returns:
        {rule: {"mean", "low", "high"}}; the intervals of all rules come from the same resamples of problems.
    """
    if not samples:
        raise ValueError("got no problems to measure best-of-n on")
    rows = [problem_values(sample, n, seed, target) for sample in samples]
    results = {}
    for rule in rows[0]:
        values = np.array([row[rule] for row in rows])
        low, high = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
        results[rule] = {"mean": float(values.mean()), "low": low, "high": high}
    return results
