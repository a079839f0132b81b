"""The F1 of a blind guess, by hand and by search, and what is said of a PRM that does not beat it."""

import math
import random

import pytest

from rlhf_prm.evaluation.chance import beside_chance, chance_f1, no_better_than_chance
from rlhf_prm.evaluation.processbench import processbench_metrics


def test_by_hand():
    # 3 of 4 erroneous solutions fail first at step 0, m = 3/4; a quarter, m = 1/4, gives 0.5/2.25
    assert chance_f1([0, 0, 0, 2, -1]) == pytest.approx(1.5 / (1 + math.sqrt(0.75)) ** 2)
    assert chance_f1([0, 1, 2, 3, -1, -1]) == pytest.approx(0.5 / 2.25)
    assert chance_f1([1, -1]) == pytest.approx(0.5)  # the best coin is fair and right half the time about both
    assert chance_f1([0, 1]) == chance_f1([-1, -1]) == chance_f1([]) == 0.0


def test_no_coin_of_a_fine_search_does_better_and_one_does_as_well():
    truth = [0] * 5 + [1] * 3 + [2] * 2 + [-1] * 7
    m = 0.5
    searched = max(2 * (p * m) * (1 - p) / (p * m + 1 - p) for p in (i / 10_000 for i in range(1, 10_000)))
    assert chance_f1(truth) == pytest.approx(searched, abs=1e-6)


def test_a_drawn_guess_reaches_it_and_constants_have_none():
    truth = ([0] * 5 + [1] * 3 + [2] * 2 + [-1] * 7) * 2000
    rng = random.Random(0)
    says_error = 1 / (1 + math.sqrt(0.5))
    guesses = [0 if rng.random() < says_error else -1 for _ in truth]
    assert processbench_metrics(guesses, truth)["f1"] == pytest.approx(chance_f1(truth), abs=0.01)
    assert all(processbench_metrics([k] * len(truth), truth)["f1"] == 0 for k in (-1, 0, 1))


def test_what_is_no_better_than_chance_is_named_with_its_number():
    good = {"f1": 0.6, "chance_f1": 0.3, "auroc": 0.8}
    assert no_better_than_chance(good) == []
    assert no_better_than_chance(good | {"auroc": math.nan}) == []
    (one,) = no_better_than_chance(good | {"f1": 0.3})
    assert "F1 0.300" in one and "0.300" in one.split("where")[1]
    assert len(no_better_than_chance(good | {"f1": 0.0, "auroc": 0.5})) == 2
    assert beside_chance(good).startswith("held-out first-error F1 0.600 (blind guess 0.300")


def test_an_outcome_models_f1_is_called_one_of_whole_solutions():
    """One label a solution: "first error" would say what is not measured."""
    told = {"f1": 0.4, "chance_f1": 0.5, "auroc": 0.4}
    for text in (beside_chance(told, "outcome"), " ".join(no_better_than_chance(told, "outcome"))):
        assert "F1 of whole solutions 0.400" in text and "AUROC of whole solutions 0.400" in text
        assert "first-error" not in text and "step" not in text
