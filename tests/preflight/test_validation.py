"""benchmarks/preflight_validation.py on gains that follow a known rule."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from rlhf_prm.preflight.verdict import Condition

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import preflight_validation
    finally:
        sys.path.pop(0)
    return preflight_validation


def made_up(script, builds=range(8), per_build=8, seed=0):
    """Pays where ρ > .25 and accuracy < .6, harms where the mean score's AUROC is below .45; the rest is noise."""
    rng = random.Random(seed)
    pairs = []
    for build in builds:
        for number in range(per_build):
            rho, accuracy, auroc = rng.uniform(-0.2, 0.6), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9)
            gain = -0.2 if auroc < 0.45 else 0.3 if rho > 0.25 and accuracy < 0.6 else rng.uniform(-0.01, 0.01)
            noise = {name: rng.random() for name in ("auroc_min", "credit_size", "score_with_steps")}
            measures = {"rho": rho, "accuracy": accuracy, "auroc_mean": auroc, "first_error_f1": None, **noise}
            pairs.append(script.Pair(measures, gain, 0.01, "long" if number % 2 else "plain", build, f"prm {number}"))
    return pairs


@pytest.mark.parametrize(
    ("gain", "error", "expected"),
    [
        (0.041, 0.01, "pay"), (0.04, 0.01, "not to matter"), (0.3, 0.15, "not to matter"),
        (-0.041, 0.01, "harm"), (-0.03, 0.01, "not to matter"), (0.0, 0.0, "not to matter"),
    ],
)  # fmt: skip
def test_classes_by_hand(script, gain, error, expected):
    assert script.gain_class(script.Pair({}, gain, error, "w", 0, "p")) == expected


def test_limits_by_hand(script):
    pairs = [
        script.Pair({"rho": rho, "x": x}, 0, 0, "w", 0, "p") for rho, x in [(0, 1), (1, 1), (2, 0), (6, 1), (7, 0)]
    ]
    wanted = np.array([False, False, False, True, True])
    assert script.fit_limits(pairs, wanted, [("rho", True)]) == (Condition("rho", 4.0),)
    assert script.fit_limits(pairs, ~wanted, [("rho", False)]) == (Condition("rho", 4.0, at_least=False),)
    # the fourth pair alone: ρ ≥ 4 (the most room) and x ≥ ½
    wanted = np.array([False, False, False, True, False])
    assert script.fit_limits(pairs, wanted, [("rho", True), ("x", True)]) == (
        Condition("rho", 4.0),
        Condition("x", 0.5),
    )


def test_an_unknown_measure_holds_no_condition(script):
    pairs = [script.Pair({"rho": rho}, 0, 0, "w", 0, "p") for rho in (None, 0.5)]
    assert script.holding((Condition("rho", 0.1),), pairs).tolist() == [False, True]
    assert script.holding((), pairs).tolist() == [False, False]


def test_the_rule_behind_the_gains_is_found_and_holds_on_held_out_builds(script):
    pairs = made_up(script)
    results = script.validate(pairs, [0, 1, 2, 3], [4, 5, 6, 7], 0.02, 2.0)
    pay, harm = results["rule"]["pay"], results["rule"]["harm"]
    assert {one["measure"]: one["at_least"] for one in harm} == {"auroc_mean": False}
    assert harm[0]["limit"] == pytest.approx(0.45, abs=0.05)
    assert {("rho", True), ("accuracy", False)} == {(one["measure"], one["at_least"]) for one in pay}
    assert results["agreement"]["held out"]["agreement"] > 0.85 > results["agreement"]["held out"]["most_common_class"]
    assert results["agreement"]["fitted"]["pairs"] == results["agreement"]["held out"]["pairs"] == 32
    assert "builds 0, 1, 2, 3" in results["rule"]["origin"]


def test_noise_is_not_called_a_rule(script):
    pairs = made_up(script, range(4), 12)
    shuffled = [pair.gain for pair in pairs]
    random.Random(1).shuffle(shuffled)
    pairs = [script.replace(pair, gain=gain) for pair, gain in zip(pairs, shuffled, strict=True)]
    classes = [script.gain_class(pair) for pair in pairs]
    rule = script.fit_rule(pairs[:24], classes[:24])
    said = [rule.kind(pair.measures) for pair in pairs[24:]]
    assert script.agreement(script.confusion(classes[24:], said))["kappa"] < 0.3


def test_a_held_out_build_takes_no_part_in_its_own_verdicts(script):
    """One build follows the opposite rule: left out, it is judged by what the others say."""
    pairs = [
        script.Pair({"rho": rho}, gain, 0.01, "w", build, "p")
        for build in range(4)
        for rho, gain in ([(0.1, 0.0), (0.4, 0.2)] if build else [(0.1, 0.2), (0.4, 0.0)])
    ]
    classes = [script.gain_class(pair) for pair in pairs]
    assert script.left_out_verdicts(pairs, classes)[:2] == ["not to matter", "pay"]


def test_confusion_and_agreement_by_hand(script):
    table = script.confusion(["pay", "pay", "harm", "not to matter"], ["pay", "harm", "harm", "cannot tell"])
    assert table["pay"] == {"pay": 1, "not to matter": 0, "harm": 1, "cannot tell": 0}
    assert table["not to matter"]["cannot tell"] == 1
    told = script.agreement(table)
    assert told["pairs"] == 4 and told["agreement"] == 0.5 and told["most_common_class"] == 0.5
    # by chance: pay ½·¼ + harm ¼·½ = ¼
    assert told["kappa"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert told["low"] < 0.5 < told["high"]


def test_predictors_by_hand(script):
    rows = [("a", 1, 10), ("a", 2, 20), ("a", 3, 30), ("b", 1, 3), ("b", 2, 2), ("b", 3, 1), ("b", None, 5)]
    pairs = [script.Pair({"rho": rho, "rho_se": 9.0, "flat": 1.0}, gain, 0, world, 0, "p") for world, rho, gain in rows]
    found = script.predictors(pairs)
    assert [row["measure"] for row in found] == ["rho"] and found[0]["pairs"] == 6
    assert found[0]["within_worlds"] == pytest.approx(0.0)  # +1 in one world, −1 in the other
    # ranks of ρ 1½ 3½ 5½ 1½ 3½ 5½, of the gain 4 5 6 3 2 1
    assert found[0]["all"] == pytest.approx(np.corrcoef([1.5, 3.5, 5.5] * 2, [4, 5, 6, 3, 2, 1])[0, 1])


def test_the_command(script, tmp_path, capsys, monkeypatch):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([vars(pair) for pair in made_up(script, range(4), 4)]))
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    script.main([str(path), "--write"])
    printed = capsys.readouterr().out
    assert "held out: " in printed and "| pay |" in printed and "RULE = VerdictRule(" in printed
    written = json.loads((tmp_path / "preflight_validation.json").read_text())
    assert written["fit_builds"] == [0, 2] and written["test_builds"] == [1, 3] and len(written["pairs"]) == 16


def test_the_shipped_rule_on_pairs_that_came_later(script):
    good = {condition.measure: condition.limit + 0.1 for condition in script.RULE.pay}
    bad = {name: value - 0.2 for name, value in good.items()}
    rows = [("a", good, 0.1), ("a", good, 0.01), ("b", bad, 0.0), ("b", bad, -0.1)]
    pairs = [script.Pair(measures, gain, 0.01, world, 7, f"prm {gain}") for world, measures, gain in rows]
    told = script.as_it_stands(pairs, margin=0.0, errors=2.0).splitlines()
    assert told[0].startswith("all: 50 % of 4 pairs agree") and told[1].startswith("a: 50 % of 2")
    assert told[3:] == [
        "a, build 7, prm 0.01: said pay, gained +0.010 ± 0.010 (not to matter)",
        "b, build 7, prm -0.1: said not to matter, gained -0.100 ± 0.010 (harm)",
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("[]", [], "at least one pair"),
        ('[{"gain": 0}]', [], "pair 1: got"),
        ('[{"measures": {}, "gain": NaN, "gain_se": 0, "world": "w", "build": 0, "prm": "p"}]', [], "must be numbers"),
        (None, ["--fit-builds", "1", "--test-builds", "1"], "both fitted and held out"),
        (None, ["--fit-builds", "99"], r"no pair for the builds \[99\]"),
    ],
)
def test_faults_are_named(script, tmp_path, content, arguments, message):
    path = tmp_path / "pairs.json"
    path.write_text(content or json.dumps([vars(pair) for pair in made_up(script, range(2), 2)]))
    with pytest.raises(SystemExit, match=message):
        script.main([str(path), *arguments])
