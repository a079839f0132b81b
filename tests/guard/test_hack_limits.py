"""What HackGuard writes for the page to draw: the limit of each detector."""

import json
import math

import pytest

from rlhf_prm.guard.detectors import TripRule
from rlhf_prm.guard.rules import Watch
from tests.guard.test_hackguard import MadeUpRun


def test_limits_are_those_that_trip():
    """Reference 1, 1.2, 0.8 (mean 1, spread 0.2); a window of 2: margin 3 · 0.2 · √(1/3 + 1/2) = 0.5477 > 0.1."""
    rules = {"length": TripRule("up", 0.1), "auroc": TripRule("down", 0.1, least=0.4)}
    watch = Watch(rules=rules, reference=3, window=2)
    for length in (1.0, 1.2, 0.8):
        assert watch.limits() == {}
        watch.observe({"length": length, "auroc": 0.8}, math.nan, math.nan)
    limits = watch.limits()
    assert limits == pytest.approx({"length": 1 + 3 * 0.2 * math.sqrt(5 / 6), "auroc": 0.4})
    trips = [watch.observe({"length": 2.0, "auroc": 0.8}, math.nan, math.nan) for _ in range(2)][-1]
    assert [trip.detector for trip in trips] == ["length"] and trips[0].limit == pytest.approx(limits["length"])


def test_the_guard_leaves_its_limits_in_the_runs_folder(tmp_path):
    run = MadeUpRun(tmp_path, lambda update: 4, lambda update: 0.5, action="warn").begin().go(1, 14)
    written = json.loads((tmp_path / "hack_limits.json").read_text())
    assert written == run.guard.watch.limits() and written["steps_per_rollout"] > 4
