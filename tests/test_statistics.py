"""Intervals against hand-worked numbers and published tables."""

import math

import pytest

from rlhf_prm.statistics import mean_interval, share_interval


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
