"""Formulas that more than one part of the project measures with."""

import math
from collections.abc import Callable, Sequence

import numpy as np

WRONG_AT_OR_BELOW = 0.5  # ProcessBench's rule for a PRM that emits probabilities (arXiv 2501.07301)


def first_error(labels: Sequence[bool | int]) -> int:
    """0-based index of the first step labelled wrong, −1 when there is none."""
    return next((index for index, label in enumerate(labels) if not label), -1)


def predicted_first_error(step_scores: Sequence[float], threshold: float = WRONG_AT_OR_BELOW) -> int:
    """0-based index of the first step score ≤ ``threshold``, −1 when there is none.

    NaN (a step past the model's context) is no evidence of an error and never counts as one.
    """
    return next((index for index, score in enumerate(step_scores) if score <= threshold), -1)


def expected_calibration_error(
    scores: Sequence[float] | np.ndarray, labels: Sequence[bool | int] | np.ndarray, num_bins: int = 10
) -> float:
    """Σ_bins (n_bin / n)·|mean score − share of right steps| over equal-width bins of [0, 1]; NaN without any score.

    A score of exactly 1 falls into the last bin.
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    if values.shape != truth.shape:
        raise ValueError(f"got {values.shape[0]} scores and {truth.shape[0]} labels, expected one label per score")
    if values.size == 0:
        return math.nan
    bins = np.minimum((values * num_bins).astype(int), num_bins - 1)
    gaps = [abs(values[bins == b].sum() - truth[bins == b].sum()) for b in range(num_bins)]
    return float(sum(gaps) / values.size)


def bootstrap_interval(
    rows: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic`` over the rows (the independent units, e.g. problems) of an array.

    Raises:
        ValueError: no rows.
    """
    rows = np.asarray(rows)
    if len(rows) == 0:
        raise ValueError("got no rows to resample, expected at least one")
    generator = np.random.default_rng(seed)
    draws = [statistic(rows[generator.integers(0, len(rows), len(rows))]) for _ in range(resamples)]
    if np.isnan(draws).all():
        return math.nan, math.nan
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
