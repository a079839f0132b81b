"""AUROC: how well scores tell right from wrong; of any scores, and of rollouts by their lowest step score."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from reward.rollouts import StepRollouts


def process_auroc(rollouts: StepRollouts, among: Bool[Tensor, " B"] | None = None) -> float:
    """AUROC of a rollout's lowest step score against its verdict; NaN if all are right or all wrong.

    A solution is as right as its worst step: the lowest score is what the verdict should agree with.

    Args:
        among: the rollouts that count, of the scorable ones; None = all of them.
    """
    lowest = rollouts.step_scores.float().masked_fill(~rollouts.step_mask, torch.inf).amin(1)
    ranked = rollouts.scorable if among is None else rollouts.scorable & among
    return auroc(lowest[ranked], rollouts.correct[ranked])


def auroc(scores: Sequence[float] | Tensor, labels: Sequence[bool] | Sequence[int] | Tensor) -> float:
    """P(score of a positive > score of a negative) + ½·P(equal); NaN if there is only one class.

    Raises:
        ValueError: different lengths, or a NaN score.
    """
    values = torch.as_tensor(scores, dtype=torch.float64).flatten()
    positive = torch.as_tensor(labels, device=values.device).flatten().bool()
    if len(values) != len(positive):
        raise ValueError(f"auroc: got {len(values)} scores and {len(positive)} labels, expected as many")
    if values.isnan().any():
        raise ValueError(f"auroc: got {int(values.isnan().sum())} NaN scores, expected numbers; drop unscored items")
    negatives = len(values) - int(positive.sum())
    positives = len(values) - negatives
    if not positives or not negatives:
        return math.nan
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0) - (counts - 1) / 2  # the mean rank of tied scores, from 1
    above = ranks[inverse][positive].double().sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
