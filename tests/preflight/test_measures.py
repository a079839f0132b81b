"""Every measure by hand on one small table, identities of known PRMs, and faults."""

import math
import random

import numpy as np
import pytest

from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.credit import positional_credit
from rlhf_prm.preflight.drifts import mean_score_by_position
from rlhf_prm.preflight.measures import preflight_measures, separation, trust
from rlhf_prm.preflight.within_groups import auroc_within, correlation_within, ratio


def sample(scores, correct, errors=None, answers=None, steps=None):
    steps = steps or [["step"] * len(row) for row in scores]
    return SampledProblem("p", steps, correct, answers or [str(c) for c in correct], scores, errors)


# Two problems. A and C are right, B is wrong; D is right, E is wrong. C's only step is wrong all the same.
TABLE = [
    sample([[0.9, 0.8], [0.7, 0.2], [0.5]], [True, False, True], [-1, 1, 0], ["x", "y", "x"]),
    sample([[0.4], [0.6]], [True, False], [-1, 0], ["x", "y"]),
]
MEASURED = preflight_measures(TABLE)


def test_positional_credit_by_hand():
    credit = positional_credit(TABLE[0].step_scores)
    # k = 0: .9 − (.7 + .5)/2, .7 − (.9 + .5)/2, .5 − (.9 + .7)/2; k = 1: .8 − .2, .2 − .8
    expected = [[0.3, 0.6], [0.0, -0.6], [-0.3]]
    assert [value for row in credit for value in row] == pytest.approx([v for row in expected for v in row])
    assert positional_credit([[0.3, 0.9], [0.5]])[0][1] == 0.0  # nobody else has a second step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("problems", 2), ("rollouts", 5), ("accuracy", 3 / 5), ("mixed_share", 1), ("all_wrong_share", 0),
        ("all_right_share", 0), ("unscored_share", 0),
        # pairs (right, wrong) of a group: A–B, C–B in order, D–E not
        ("auroc_min", 2 / 3), ("auroc_mean", 2 / 3), ("auroc_last", 2 / 3), ("auroc_credit", 2 / 3),
        # k = 0: A above B, C below; k = 1: A above B; D below E
        ("auroc_same_position", 2 / 4),
        # left out one group at a time: 0 and 1 → √(½·(¼ + ¼))
        ("auroc_min_se", 0.5),
        # summed credit .9 −.6 −.3 and −.2 .2; deviations of the outcome ⅓ −⅔ ⅓ and ½ −½
        ("rho", 0.4 / math.sqrt((1.26 + 0.08) * (2 / 3 + 1 / 2))), ("rho_mixed", 0.4 / math.sqrt(1.34 * 7 / 6)),
        # approved: A and E, one of them right; base 3/5
        ("approved_share", 2 / 5), ("approved_right", 1 / 2), ("approval_lift", (1 / 2 - 3 / 5) / (2 / 5)),
        # without the second group .6/√(1.26·⅔), without the first −1
        ("rho_se", (0.6 / math.sqrt(0.84) + 1) / 2),
        ("credit_size", math.sqrt((0.09 + 0.36 + 0 + 0.36 + 0.09 + 0.04 + 0.04) / 7)),
        # predictions −1 1 0 | 0 −1 against −1 1 0 | −1 0
        ("error_accuracy", 2 / 3), ("correct_accuracy", 1 / 2), ("first_error_f1", 4 / 7), ("labelled_rollouts", 5),
        ("flawed_right", 1 / 3), ("flawed_right_by_prm", 2 / 3), ("flawed_right_that_pass", 0),
        # right .9 .8 .7 .4 against wrong .2 .5 .6
        ("step_auroc", 10 / 12),
        # k = 0: .9 .7 above .5; k = 1: .8 above .2; second problem: .4 below .6
        ("step_auroc_same_position", 3 / 4),
        ("credit_gap", (0.3 + 0.6 + 0.0 - 0.2) / 4 - (-0.6 - 0.3 + 0.2) / 3),
        # n = 3: the first problem alone
        ("n", 3), ("mean_of_1", 2 / 3), ("pass_of_n", 1), ("majority", 1), ("best_by_min", 1), ("best_by_product", 1),
        ("best_by_min_minus_majority", 0), ("headroom_used", 1),
        ("position_slope", -0.1),  # A is the only right rollout with two steps
        ("score_with_steps", 1), ("credit_with_steps", 1), ("credit_with_length", 1),  # A against C
        ("drift_position", -1 / math.sqrt(12)),  # (0, .9) (1, .8) (0, .5) (0, .4): ranks 2 4 2 2 and 4 3 2 1
    ],
)  # fmt: skip
def test_by_hand(name, value):
    if name == "drift_position":
        value = np.corrcoef([2, 4, 2, 2], [4, 3, 2, 1])[0, 1]
    assert MEASURED[name] == pytest.approx(value)


def test_mean_score_by_position_is_over_right_rollouts():
    assert mean_score_by_position(TABLE) == [(pytest.approx((0.9 + 0.5 + 0.4) / 3), 3), (0.8, 1)]


def drawn(seed=0, problems=40, n=8):
    """Labels and outcomes that hang together, rollouts of different length, scores of no meaning."""
    rng = random.Random(seed)
    samples = []
    for _ in range(problems):
        lengths = [rng.randint(2, 6) for _ in range(n)]
        errors = [rng.choice([-1, rng.randrange(k)]) for k in lengths]
        correct = [(error < 0) ^ (rng.random() < 0.1) for error in errors]
        scores = [[rng.random() for _ in range(k)] for k in lengths]
        samples.append(sample(scores, correct, errors))
    return samples


def rescored(samples, rule):
    """Scores by ``rule(correct, error, k, old)``."""
    return [
        sample(
            [
                [rule(c, e, k, old) for k, old in enumerate(row)]
                for row, c, e in zip(one.step_scores, one.correct, one.first_errors, strict=True)
            ],
            one.correct,
            one.first_errors,
        )
        for one in samples
    ]


@pytest.mark.parametrize("constant", [0.7, 0.1, 0.3])
def test_a_constant_prm_knows_nothing(constant):
    measured = preflight_measures(rescored(drawn(), lambda *_: constant))
    for name in (
        "auroc_min",
        "auroc_mean",
        "auroc_last",
        "auroc_credit",
        "step_auroc",
        "step_auroc_same_position",
        "auroc_same_position",
    ):
        assert measured[name] == 0.5, name
    assert measured["rho"] == measured["rho_se"] == measured["credit_size"] == measured["credit_gap"] == 0.0
    assert measured["best_by_mean"] == pytest.approx(measured["mean_of_1"])  # a blind choice
    assert measured["headroom_used"] == pytest.approx(0.0)
    assert measured["score_with_steps"] == measured["position_slope"] == 0.0


def test_a_prm_that_knows_the_labels_is_perfect():
    measured = preflight_measures(rescored(drawn(), lambda c, e, k, old: 0.98 if e < 0 or k < e else 0.02))
    for name in ("step_auroc", "step_auroc_same_position", "first_error_f1"):
        assert measured[name] == 1.0, name
    assert measured["flawed_right_by_prm"] == measured["flawed_right"] and measured["flawed_right_that_pass"] == 0.0
    assert measured["credit_gap"] > 0.3


def test_a_prm_that_knows_the_outcome_is_perfect_on_outcomes_and_its_inverse_is_the_mirror():
    knows = preflight_measures(rescored(drawn(), lambda c, e, k, old: 0.9 if c else 0.1))
    wrong = preflight_measures(rescored(drawn(), lambda c, e, k, old: 0.1 if c else 0.9))
    for name in ("auroc_min", "auroc_mean", "auroc_last", "auroc_credit", "headroom_used"):
        assert knows[name] == 1.0, name
    assert knows["auroc_min_se"] == 0.0 and wrong["auroc_min"] == 0.0
    assert knows["best_by_min"] == knows["pass_of_n"]
    assert knows["rho"] > 0.7 and wrong["rho"] == pytest.approx(-knows["rho"])


def test_rho_does_not_see_what_depends_on_the_position_alone():
    """Scores that rise with the position in every rollout alike: the same credit, though all AUROCs may move."""
    flat, rising = drawn(), rescored(drawn(), lambda c, e, k, old: 0.3 * k + old)
    before, after = preflight_measures(flat), preflight_measures(rising)
    for name in ("rho", "rho_mixed", "auroc_credit", "credit_size", "credit_gap", "credit_with_steps"):
        assert after[name] == pytest.approx(before[name]), name
    assert after["position_slope"] == pytest.approx(before["position_slope"] + 0.3)
    assert after["score_with_steps"] > before["score_with_steps"] + 0.5


def test_rho_is_numpy_s_correlation_of_the_deviations():
    samples = drawn(seed=3)
    credits, outcomes = [], []
    for one in samples:
        total = np.array([sum(row) for row in positional_credit(one.step_scores)])
        credits.append(total - total.mean())
        outcomes.append(np.array(one.correct) - np.mean(one.correct))
    x, y = np.concatenate(credits), np.concatenate(outcomes)
    assert preflight_measures(samples)["rho"] == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)))


def test_the_standard_error_is_the_spread_over_fresh_samples():
    """Over 40 draws of 20 groups the mean reported error is the standard deviation of the values, within a third."""
    values, errors = {"auroc_min": [], "rho": []}, {"auroc_min": [], "rho": []}
    for seed in range(40):
        noisy = rescored(drawn(seed, 20), lambda c, e, k, old: old + 0.2 * c)
        measured = separation(noisy) | trust(noisy)
        for name in values:
            values[name].append(measured[name])
            errors[name].append(measured[f"{name}_se"])
    for name, drawn_values in values.items():
        assert np.mean(errors[name]) == pytest.approx(np.std(drawn_values, ddof=1), rel=1 / 3), name


def test_groups_are_never_compared_with_each_other():
    # every right rollout of the easy problem scores below every wrong one of the hard problem
    easy, hard = ([0.2, 0.1], [True, False]), ([0.9, 0.8], [True, False])
    assert auroc_within([easy, hard]).value == 1.0
    assert correlation_within([easy, hard]).value == pytest.approx(1.0)


def test_a_mixed_group_alone_has_a_value_and_no_error():
    measured = preflight_measures([TABLE[0]])
    assert measured["auroc_min"] == 1.0 and measured["auroc_min_se"] is None
    assert ratio([(1, 2), (0, 0)]) == (0.5, None)
    assert ratio([]) == ratio([(0, 0)]) == (None, None)


def test_groups_all_wrong_have_no_auroc_and_no_rho():
    measured = preflight_measures([sample([[0.9], [0.1]], [False, False])] * 3)
    assert measured["all_wrong_share"] == 1.0 and measured["mixed_share"] == 0.0
    for name in ("auroc_min", "auroc_credit", "rho", "rho_mixed", "flawed_right_by_prm", "headroom_used"):
        assert measured[name] is None, name


def test_one_rollout_per_problem_is_no_group():
    measured = preflight_measures([sample([[0.9]], [True], [-1]), sample([[0.1]], [False], [0])])
    for name in ("mixed_share", "auroc_min", "rho", "credit_size", "n", "majority", "headroom_used_se"):
        assert measured[name] is None, name
    assert measured["accuracy"] == 0.5 and measured["first_error_f1"] == 1.0 and measured["step_auroc"] == 1.0


def test_an_unscored_step_takes_its_rollout_out_of_the_scores_but_not_out_of_the_outcomes():
    scores = [[0.9, 0.8], [0.7, 0.2], [0.5], [0.99, math.nan]]
    with_nan = sample(scores, [True, False, True, False], [-1, 1, 0, 1], ["x", "y", "x", "y"])
    measured = preflight_measures([with_nan, TABLE[1]])
    assert measured["unscored_share"] == pytest.approx(1 / 6) and measured["accuracy"] == 0.5
    for name in ("auroc_min", "rho", "first_error_f1", "step_auroc", "credit_gap", "position_slope"):
        assert measured[name] == pytest.approx(MEASURED[name]), name
    assert measured["n"] == 4.0 and measured["majority"] == 0.5 and measured["best_by_min"] == 1.0
    nothing = preflight_measures([sample([[math.nan], [math.nan]], [True, False])])
    assert nothing["unscored_share"] == 1.0 and nothing["auroc_min"] is None and nothing["mixed_share"] == 1.0


def test_without_labels_or_answers_what_needs_them_is_not_measured():
    one = SampledProblem("p", [["a"], ["b"]], [True, False], [None, None], [[0.9], [0.1]])
    measured = preflight_measures([one])
    for name in (
        "first_error_f1",
        "step_auroc",
        "flawed_right",
        "credit_gap",
        "majority",
        "best_by_min_minus_majority",
    ):
        assert measured[name] is None, name
    assert measured["best_by_min"] == 1.0 and measured["labelled_rollouts"] == 0.0
    some = preflight_measures([sample([[0.9], [0.1]], [True, False], [None, 0])])
    assert some["labelled_rollouts"] == 1.0 and some["first_error_f1"] is None and some["error_accuracy"] == 1.0


def test_length_is_counted_as_asked():
    rows = [["a long step of many words"], ["ab cd ef"], ["x"]]
    one = sample([[0.1], [0.5], [0.8]], [True, True, True], steps=rows)
    by_characters, by_none = preflight_measures([one]), preflight_measures([one], length=lambda text: 1)
    assert by_characters["credit_with_length"] < -0.9 and by_none["credit_with_length"] is None


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no samples"),
        ([SampledProblem("p", [["a"]], [True], ["1"])], "no step scores"),
        ([sample([[0.5]], [True], steps=[["a", "b"]])], r"got \[1\] step scores for \[2\] steps"),
        ([sample([[]], [True], steps=[[]])], "at least one step"),
        ([sample([[0.5], [0.4]], [True, False], [0])], "got 1 first errors for 2 rollouts"),
    ],
)
def test_faults_are_named(samples, message):
    with pytest.raises(ValueError, match=message):
        preflight_measures(samples)
