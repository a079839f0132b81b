"""The shared formulas against hand-worked numbers."""

import math

import numpy as np
import pytest

from rlhf_prm.statistics import bootstrap_interval, expected_calibration_error, first_error, predicted_first_error


def test_first_error():
    assert [first_error(row) for row in ([], [True, 1], [1, False, 0], [0])] == [-1, -1, 1, 0]
    assert predicted_first_error([0.9, 0.5, 0.1]) == 1  # 0.5 itself is wrong
    assert predicted_first_error([0.9, math.nan, 0.6]) == -1
    assert predicted_first_error([0.9, 0.5], threshold=0.4) == -1


def test_calibration_by_hand():
    # bin [.2, .3): mean .25, half right → gap .25 of 2; last bin: .9 and 1.0, one right → gap .45 of 2
    assert expected_calibration_error([0.2, 0.3 - 1e-9, 0.9, 1.0], [1, 0, 0, 1]) == pytest.approx((0.25 + 0.45) / 2)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0.0
    assert math.isnan(expected_calibration_error([], []))
    with pytest.raises(ValueError, match="got 2 scores and 1 labels"):
        expected_calibration_error([0.1, 0.2], [1])


def test_bootstrap_interval_covers_as_it_says():
    generator = np.random.default_rng(0)
    low, high = bootstrap_interval(np.full(20, 0.3))
    assert low == pytest.approx(0.3) and high == pytest.approx(0.3)
    covered = 0
    for trial in range(100):
        low, high = bootstrap_interval(generator.normal(1.0, 1.0, 80), resamples=300, level=0.9, seed=trial)
        covered += low <= 1.0 <= high
    assert 80 <= covered <= 97
    with pytest.raises(ValueError, match="no rows"):
        bootstrap_interval(np.array([]))
