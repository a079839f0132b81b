"""Drift of the scores with position and length, at equal correctness."""

from collections.abc import Callable, Sequence

import numpy as np

from rlhf_prm.evaluation.aggregation import solution_score
from rlhf_prm.evaluation.audit.measures import drift_points
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.credit import summed_credit
from rlhf_prm.preflight.within_groups import Measures, slope_within, strata_correlation
from rlhf_prm.statistics import rank_correlation


def drift(samples: Sequence[SampledProblem], length: Callable[[str], int] = len) -> Measures:
    """How the scores depend on position and length, at equal correctness.

    ``drift_position`` and ``drift_length`` are the audit's rank correlations of a step's score with its place and its
    length, in right rollouts. ``position_slope`` is the change of the score from one step to the next within right
    rollouts. The others are correlations within groups, among rollouts with the same verdict: of the mean score with
    the number of steps, and of the summed credit with the number of steps and with the length of the text.
    """
    right = [
        [(scores, range(len(scores))) for scores, correct in zip(s.step_scores, s.correct, strict=True) if correct]
        for s in samples
    ]
    means = [[solution_score(row, "mean") for row in sample.step_scores] for sample in samples]
    credits = [summed_credit(sample) for sample in samples]
    steps = [[float(len(row)) for row in sample.step_scores] for sample in samples]
    lengths = [[float(sum(map(length, row))) for row in sample.steps] for sample in samples]
    correlations = {
        "score_with_steps": (means, steps),
        "credit_with_steps": (credits, steps),
        "credit_with_length": (credits, lengths),
    }
    measures: Measures = {
        **{
            f"drift_{kind}": rank_correlation(*np.concatenate(drift_points(samples, kind)).T) if samples else None
            for kind in ("position", "length")
        },
        **slope_within(right).named("position_slope"),
    }
    for name, (x, y) in correlations.items():
        strata = [_by_verdict(sample, *pair) for sample, pair in zip(samples, zip(x, y, strict=True), strict=True)]
        measures |= strata_correlation(strata).named(name)
    return measures


def _by_verdict(sample: SampledProblem, x: list[float], y: list[float]) -> list[tuple[list[float], list[float]]]:
    rows = list(zip(sample.correct, x, y, strict=True))
    return [
        ([a for c, a, _ in rows if c == verdict], [b for c, _, b in rows if c == verdict]) for verdict in (True, False)
    ]


def mean_score_by_position(samples: Sequence[SampledProblem]) -> list[tuple[float, int]]:
    """For every position: the mean score of the right rollouts' steps there, and how many those are."""
    points = np.concatenate([np.zeros((0, 2)), *drift_points(samples, "position")])
    return [
        (float(points[points[:, 0] == k, 1].mean()), int((points[:, 0] == k).sum())) for k in np.unique(points[:, 0])
    ]
