"""The verdict's rule, what it says, and the warning at the start of a run."""

import random

import pytest

from reward import METHODS
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.measures import preflight_measures
from rlhf_prm.preflight.verdict import RULE, Condition, VerdictRule, cautions, verdict
from rlhf_prm.preflight.warning import warn_if_no_better_than_chance
from rlhf_prm.preflight.wording import WORDINGS, written

TWO_SIDED = VerdictRule(
    pay=(Condition("rho", 0.2), Condition("accuracy", 0.8, at_least=False)),
    harm=(Condition("rho", -0.1, at_least=False),),
    dense_method="pure",
)


@pytest.mark.parametrize(
    ("rho", "accuracy", "kind", "method"),
    [
        (0.2, 0.8, "pay", "pure"),  # at the limits
        (0.3, 0.9, "not to matter", "outcome"),  # one condition of two
        (0.19, 0.5, "not to matter", "outcome"),
        (-0.1, 0.5, "harm", "outcome"),
        (None, 0.5, "cannot tell", "outcome"),
        (0.3, None, "cannot tell", "outcome"),
        (-0.2, None, "harm", "outcome"),  # what is unknown would not have changed it
        (0.1, None, "not to matter", "outcome"),
    ],
)
def test_rule(rho, accuracy, kind, method):
    found = verdict({"rho": rho, "accuracy": accuracy, "mixed_share": 0.5}, TWO_SIDED)
    assert (found.kind, found.method) == (kind, method)


def test_a_rule_without_conditions_never_says_pay_or_harm():
    assert verdict({"rho": 1.0}, VerdictRule(pay=(), harm=())).kind == "not to matter"


def test_reasons_name_the_numbers_that_decided_and_the_limits():
    pays = verdict({"rho": 0.3123, "rho_se": 0.02, "accuracy": 0.5}, TWO_SIDED)
    assert pays.reasons == [
        "ρ, credit with outcome is 0.312 ± 0.020; dense rewards paid where it was at least 0.200",
        "right answers is 50.0 %; dense rewards paid where it was at most 80.0 %",
    ]
    assert not pays.close and verdict({"rho": 0.23, "rho_se": 0.02, "accuracy": 0.5}, TWO_SIDED).close
    harms = verdict({"rho": -0.5, "accuracy": 0.5}, TWO_SIDED)
    assert harms.reasons == ["ρ, credit with outcome is −0.500; dense rewards harmed where it was at most −0.100"]
    unknown = verdict({"mixed_share": 0.0}, TWO_SIDED)
    assert "no group holds a right and a wrong answer" in unknown.reasons[0]
    assert len(unknown.reasons) == 4 and all("could not be measured" in reason for reason in unknown.reasons[1:])
    assert "cannot be told" in unknown.headline


def test_the_shipped_rule_stands_on_lines_that_are_shown_and_names_methods_that_exist():
    for condition in (*RULE.pay, *RULE.harm):
        assert condition.measure in WORDINGS
    assert RULE.dense_method in METHODS and RULE.plain_method in METHODS and RULE.origin


def test_cautions_only_where_something_stands_out():
    assert (
        cautions({})
        == cautions({"all_wrong_share": 0.5, "flawed_right": 0.1, "best_by_min_minus_majority": -0.5})
        == []
    )
    found = cautions({
        "all_wrong_share": 0.6, "all_right_share": 0.6, "flawed_right": 0.2, "credit_with_steps": 0.4,
        "unscored_share": 0.1, "best_by_min_minus_majority": -0.1, "best_by_min_minus_majority_se": 0.04,
    })  # fmt: skip
    assert len(found) == 6 and "60.0 % of the groups are all wrong" in found[0] and "−10.0 % ± 4.0" in found[3]


def test_numbers_as_they_are_written():
    assert written({"rho": -0.5, "rho_se": 0.1}, "rho") == "−0.500 ± 0.100"
    assert written({"accuracy": 0.125, "accuracy_se": 0.021}, "accuracy") == "12.5 % ± 2.1"
    assert written({"rho": None}, "rho") == written({}, "rho") == "–"


def measured(rule, problems=60, seed=0):
    """Measures of groups of four rollouts of three steps, scored by ``rule(right, random number)``."""
    rng = random.Random(seed)
    samples = []
    for _ in range(problems):
        correct = [True, False, rng.random() < 0.5, rng.random() < 0.5]
        scores = [[rule(right, rng.random()) for _ in range(3)] for right in correct]
        samples.append(SampledProblem("p", [["s"] * 3] * 4, correct, ["1"] * 4, scores))
    return preflight_measures(samples)


def test_no_warning_for_a_prm_that_knows_something():
    assert warn_if_no_better_than_chance(measured(lambda right, noise: 0.3 * right + 0.5 * noise)) is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda right, noise: noise, "no better than chance"),
        (lambda right, noise: 0.75, "no better than chance"),
        (lambda right, noise: 0.5 * noise + 0.3 * (not right), "worse than chance"),
    ],
)
def test_a_warning_that_names_the_numbers_and_what_to_do(rule, said):
    found = measured(rule)
    message = warn_if_no_better_than_chance(found)
    assert said in message and "method=outcome" in message and "rlhf-prm preflight" in message
    for name in ("auroc_min", "auroc_mean", "rho"):
        assert written(found, name) in message and "±" in written(found, name)
    assert "60 problems" in message and ("too few samples" in message) == (said == "no better than chance")


def test_one_mixed_group_does_not_acquit_a_prm():
    lucky = [SampledProblem("p", [["s"], ["s"]], [True, False], ["1", "2"], [[0.9], [0.1]])]
    assert "no better than chance" in warn_if_no_better_than_chance(preflight_measures(lucky))


def test_a_warning_where_nothing_could_be_compared():
    all_wrong = [SampledProblem("p", [["s"], ["s"]], [False, False], ["1", "2"], [[0.9], [0.1]])]
    assert "no group holds" in warn_if_no_better_than_chance(preflight_measures(all_wrong))
    too_long = [SampledProblem("p", [["s"], ["s"]], [True, False], ["1", "2"], [[float("nan")], [float("nan")]])]
    assert "100 % of the rollouts" in warn_if_no_better_than_chance(preflight_measures(too_long))
