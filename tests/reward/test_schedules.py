"""Schedules by hand, and their refusals."""

import math

import pytest

from reward import scheduled

LINEAR = {"start": 1.0, "end": 0.2, "updates": 80, "kind": "linear"}
COSINE = LINEAR | {"kind": "cosine"}


@pytest.mark.parametrize("step", [0, 7, 10_000])
def test_a_number_is_constant(step):
    assert scheduled(0.5, step) == 0.5
    assert scheduled(2, step) == 2.0


@pytest.mark.parametrize(
    ("value", "step", "expected"),
    [
        (LINEAR, 0, 1.0),
        (LINEAR, 20, 0.8),
        (LINEAR, 40, 0.6),
        (LINEAR, 80, 0.2),
        (LINEAR, 500, 0.2),
        (COSINE, 0, 1.0),
        (COSINE, 20, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2),
        (COSINE, 40, 0.6),
        (COSINE, 80, 0.2),
        (COSINE, 500, 0.2),
        ({"start": 0, "end": 1, "updates": 4}, 1, 0.25),
    ],
)
def test_by_hand(value, step, expected):
    assert scheduled(value, step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e-3", "got '1e-3', expected a number"),
        (True, "got True"),
        (None, "got None"),
        (float("nan"), "got nan"),
        ({"start": 1.0, "end": 0.0}, "got keys"),
        (LINEAR | {"steps": 3}, "got keys"),
        (LINEAR | {"end": "0"}, "got end = '0'"),
        (LINEAR | {"updates": 0}, "got updates = 0, expected ≥ 1"),
        (LINEAR | {"kind": "step"}, "got kind 'step', expected one of linear, cosine"),
    ],
)
def test_refusals(value, message):
    with pytest.raises(ValueError, match=message):
        scheduled(value, 0)
