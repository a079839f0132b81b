"""Statistics within groups, with standard errors over groups.

A group is the rollouts of one problem. Rollouts of different problems are never compared: what separates easy problems
from hard ones does not help a method that compares a rollout with the others of its group.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

Measures = dict[str, float | None]  # by name; None = could not be measured
Pair = tuple[Sequence[float], Sequence[float]]  # two lists of numbers that run in parallel
DECIMALS = 12  # scores that differ by rounding only are equal


class Estimate(NamedTuple):
    """A number and its standard error; None where it cannot be measured."""

    value: float | None
    error: float | None

    def named(self, name: str) -> Measures:
        """As two measures: ``name`` and ``name_se``."""
        return {name: self.value, f"{name}_se": self.error}


def jackknife(rows: Sequence[Sequence[float]], statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """``statistic`` of the sums of ``rows``, with its standard error from leaving out one row (one group) at a time.

    SE² = (n − 1)/n · Σ_i (θ₋ᵢ − mean θ₋)², over the n rows that are not all zero.

    Args:
        rows: sums of each group, (groups, m).
        statistic: from sums (…, m) to numbers (…); NaN if undefined.
    """
    table = np.array([row for row in rows if any(row)], dtype=float)
    if not len(table):
        return Estimate(None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = table.sum(0)
        rest = total - table
        rest[np.abs(rest) <= 1e-12 * np.abs(total)] = 0.0  # remainders that are rounding errors only
        value, without_one = float(statistic(total)), statistic(rest)
    if not np.isfinite(value):
        return Estimate(None, None)
    n = len(table)
    spread = float(((without_one - without_one.mean()) ** 2).sum())
    return Estimate(value, float(np.sqrt((n - 1) / n * spread)) if n > 1 and np.isfinite(spread) else None)


def ratio(rows: Sequence[tuple[float, float]]) -> Estimate:
    """Σ of the first numbers / Σ of the second ones."""
    return jackknife(rows, lambda sums: np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan))


def auroc_within(groups: Iterable[tuple[Sequence[float], Sequence[bool]]]) -> Estimate:
    """P(score of a positive > score of a negative) + ½·P(equal), over all pairs that share a group.

    None if no group has both.
    """
    return ratio([pair_counts(scores, labels) for scores, labels in groups])


def auroc_within_positions(groups: Iterable[Sequence[tuple[Sequence[float], Sequence[bool]]]]) -> Estimate:
    """P(a positive step scores above a negative one at the same position of another rollout of the group) + ½·P(equal).

    Args:
        groups: for each group the (scores, labels) of its rollouts, one of each per step.
    """
    rows = []
    for rollouts in groups:
        hits = pairs = 0.0
        for k in range(max((len(scores) for scores, _ in rollouts), default=0)):
            at_k = [(scores[k], labels[k]) for scores, labels in rollouts if len(scores) > k]
            counts = pair_counts([score for score, _ in at_k], [label for _, label in at_k])
            hits, pairs = hits + counts[0], pairs + counts[1]
        rows.append((hits, pairs))
    return ratio(rows)


def pair_counts(scores: Sequence[float], labels: Sequence[bool]) -> tuple[float, float]:
    """Pairs (positive, negative) in the right order, ties counted half, and all such pairs."""
    values, positive = np.round(np.asarray(scores, dtype=float), DECIMALS), np.asarray(labels, dtype=bool)
    above = values[positive][:, None] - values[~positive][None]
    return float((above > 0).sum() + 0.5 * (above == 0).sum()), float(above.size)


def correlation_within(groups: Iterable[Pair]) -> Estimate:
    """Pearson correlation of the deviations from the group means, pooled over the groups.

    None if the second numbers vary in no group; 0 if only the first ones do not vary, because a constant follows
    nothing. Groups in which one of the two does not vary still count with the variance of the other.
    """
    return strata_correlation([[group] for group in groups])


def strata_correlation(groups: Iterable[Sequence[Pair]]) -> Estimate:
    """As :func:`correlation_within`, with deviations from the means of the strata that each group consists of."""
    return jackknife([_summed_products(strata) for strata in groups], _correlation)


def slope_within(groups: Iterable[Sequence[Pair]]) -> Estimate:
    """Least-squares slope of the first numbers over the second ones, within the strata of each group."""
    return ratio([(xy, yy) for xy, _, yy in map(_summed_products, groups)])


def _summed_products(strata: Sequence[Pair]) -> tuple[float, float, float]:
    products = [_products(*stratum) for stratum in strata]
    return sum(p[0] for p in products), sum(p[1] for p in products), sum(p[2] for p in products)


def _products(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Σ dx·dy, Σ dx², Σ dy² of the deviations from the means."""
    dx, dy = _deviations(x), _deviations(y)
    return float(dx @ dy), float(dx @ dx), float(dy @ dy)


def _deviations(values: Sequence[float]) -> np.ndarray:
    """Deviations from the mean, exactly 0 where all values are equal."""
    if len(values) == 0:
        return np.zeros(0)
    shifted = np.asarray(values, dtype=float) - values[0]
    return shifted - shifted.mean()


def _correlation(sums: np.ndarray) -> np.ndarray:
    # From sums, for all leave-one-out samples at once: scipy correlates points, and knows neither groups nor strata.
    xy, xx, yy = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.where(yy > 0, np.where(xx > 0, xy / np.sqrt(xx * yy), 0.0), np.nan)
