"""Scores that a threshold means something for: hand-worked numbers, a fit that finds what made the data, warnings."""

import math
import random
import warnings

import prm_checkpoints
import pytest
from prm_rollouts import ragged

from rlhf_prm.prm import Calibration, fitted_calibration, load_prm


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand():
    narrow = [sigmoid(0.1), sigmoid(-0.05), 0.0, 1.0]
    assert Calibration(20.0, -0.5)(narrow) == pytest.approx([sigmoid(1.5), sigmoid(-1.5), 0.0, 1.0])
    assert math.isnan(Calibration(2.0)([math.nan])[0])
    assert Calibration()(narrow) == narrow
    assert Calibration(1e6)([0.4, 0.6]) == pytest.approx([0.0, 1.0])
    for scale, shift in ((0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="positive scale"):
            Calibration(scale, shift)


def test_the_fit_finds_what_made_the_labels():
    """Steps whose labels are drawn with P = σ(30·x + 0.7), x within ±0.1, as an implicit PRM gives them."""
    draw = random.Random(0)
    log_odds = [[draw.gauss(0, 0.06) for _ in range(5)] for _ in range(4000)]
    labels = [[int(draw.random() < sigmoid(30 * x + 0.7)) for x in row] for row in log_odds]
    labels[0][0], labels[1][2] = None, math.nan
    found = fitted_calibration([[sigmoid(x) for x in row] for row in log_odds], labels)
    assert found.scale == pytest.approx(30, rel=0.05) and found.shift == pytest.approx(0.7, abs=0.06)


def test_perfectly_separated_labels_give_a_finite_scale():
    found = fitted_calibration([[0.49, 0.51], [0.495, 0.505]], [[0, 1], [False, True]])
    assert 0 < found.scale < 1e4
    low, high = found([0.495, 0.505])
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([[0.4, 0.6]], [[1]], "differ in shape"),
        ([[0.4, 0.6]], [[1, 1]], "right and wrong steps"),
        ([[0.5, 0.5]], [[1, 0]], "different scores"),
        ([[0.4, 0.6]], [[None, None]], "no step has both"),
        ([[0.4, 0.6], [0.3, 0.7]], [[1, 0], [1, 0]], "score no lower"),
    ],
)
def test_labels_that_say_nothing_are_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        fitted_calibration(scores, labels)


def test_an_implicit_prm_says_that_its_scores_are_narrow_and_is_widened(tmp_path):
    """At β = 0.001 no step of a tiny model is below 0.8 or above 0.55; with a scale, 0.8 divides them."""
    folder = prm_checkpoints.implicit(tmp_path / "prm", seed=0)
    reference = prm_checkpoints.implicit(tmp_path / "reference", seed=1)
    problems, steps = ragged()
    with pytest.warns(UserWarning, match="score_scale="):
        own = load_prm(folder, reference=reference).score(problems, steps)
    assert all(0.45 < score < 0.55 for row in own for score in row)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = load_prm(folder, reference=reference, score_scale=100.0, score_shift=0.2).score(problems, steps)
    flat, flat_wide = ([score for row in rows for score in row] for rows in (own, wide))
    assert flat_wide == pytest.approx([sigmoid(100 * math.log(p / (1 - p)) + 0.2) for p in flat], abs=1e-6)
    assert min(flat_wide) < 0.4 and max(flat_wide) > 0.8


def test_other_families_take_a_scale_too_and_do_not_warn(tmp_path):
    folder = prm_checkpoints.qwen_prm(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = load_prm(folder)
    problems, steps = ragged()
    own = scorer.score(problems, steps)
    scorer.calibration = Calibration(0.5)
    assert scorer.score(problems, steps)[0] == pytest.approx(Calibration(0.5)(own[0]))
