"""Intervals for small samples: a mean over a few seeds, a share of a few hundred problems."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean with the interval around it; ``low`` and ``high`` are NaN where one value cannot give any."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float | int], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean; NaN values are left out.

    Exact for normal values at any n ≥ 2. A percentile bootstrap is not: over 5 values it resamples a spread that is too
    small by √(4/5) and knows nothing of the heavy tails of t, and covers about 83 of 100 instead of 95.
    """
    kept = np.asarray([value for value in values if not math.isnan(value)], dtype=float)
    if kept.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(kept.mean())
    if kept.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + confidence / 2, kept.size - 1) * kept.std(ddof=1) / math.sqrt(kept.size))
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: float | int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share ``hits / total`` (Wilson 1927): inside [0, 1], sound near 0 and 1."""
    if total <= 0:
        return Interval(math.nan, math.nan, math.nan)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = hits / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
