"""Intervals against hand-worked numbers and published tables."""

import math
import random

import pytest
import torch

from rlhf_prm.statistics import auroc, mean_interval, share_interval


def test_t_interval_by_hand():
    # mean 3, standard deviation √2.5, t(0.975, 4) = 2.776445: half width 2.776445·√(2.5/5) = 1.963243
    interval = mean_interval([1, 2, 3, 4, 5, math.nan])
    assert interval == pytest.approx((3, 3 - 1.963243, 3 + 1.963243), abs=1e-5)


def test_t_interval_of_one_or_no_value():
    assert mean_interval([2.0])[0] == 2.0 and math.isnan(mean_interval([2.0]).low)
    assert math.isnan(mean_interval([]).mean)


def test_wilson_by_hand():
    # 8 of 10, z = 1.959964: centre (0.8 + 0.192073)/1.384146 = 0.716740, half width 0.226575
    assert share_interval(8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    assert share_interval(0, 10).low == 0.0 and share_interval(10, 10).high == pytest.approx(1.0)
    assert math.isnan(share_interval(0, 0).mean)


def test_auroc_by_hand():
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.75)
    assert auroc([0.5, 0.5, 0.5], [1, 0, 1]) == pytest.approx(0.5)
    assert auroc([1.0, 2.0, 2.0, 3.0], [False, True, False, True]) == pytest.approx(3.5 / 4)
    assert math.isnan(auroc([0.1, 0.2], [1, 1])) and math.isnan(auroc([], []))


@pytest.mark.parametrize("seed", range(20))
def test_auroc_equals_counting_pairs(seed):
    generator = random.Random(seed)
    scores = [generator.randint(0, 6) / 6 for _ in range(25)]
    labels = [generator.random() < 0.4 for _ in scores]
    pairs = [(s, t) for s, a in zip(scores, labels, strict=True) for t, b in zip(scores, labels, strict=True) if a > b]
    wins = sum((s > t) + 0.5 * (s == t) for s, t in pairs)
    assert auroc(torch.tensor(scores), torch.tensor(labels)) == pytest.approx(wins / len(pairs))


def test_auroc_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="got 2 scores and 1 labels"):
        auroc([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="got 1 NaN scores"):
        auroc([0.1, math.nan], [True, False])
