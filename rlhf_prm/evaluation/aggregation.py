"""Aggregations: from step scores to one score per solution."""

import math
from collections.abc import Callable, Sequence

AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "product": math.prod,
    "min": min,
    "last": lambda scores: scores[-1],
    # Taken relative to the first score, so that equal scores have exactly their own mean, and solutions tie.
    "mean": lambda scores: scores[0] + sum(score - scores[0] for score in scores) / len(scores),
}


def solution_score(step_scores: Sequence[float], how: str) -> float:
    """``step_scores`` aggregated by a name of AGGREGATIONS; −∞ with an unscorable (NaN) step, so it is never chosen.

    Raises:
        ValueError: an unknown aggregation.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"unknown aggregation {how!r}: expected one of {', '.join(AGGREGATIONS)}")
    if any(math.isnan(score) for score in step_scores):
        return -math.inf
    return AGGREGATIONS[how](step_scores)
