"""Every method: hand-worked numbers, and the slow reference over random rollouts, padding and missing outcomes."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reward import METHODS, StepRollouts
from reward.rollouts import filled_scores
from tests.reward.method_cases import GARBAGE, NAN, STATELESS, VARIANTS, expected, grouped, random_groups, rollouts_of

T3 = 0.6 / math.log(3)  # as a temperature, weighs q = .8, .2 by 1/4, 3/4
HALF_MEAN = {"reduce": "mean", "outcome_weight": 2.0}
BARE = {"temperature": T3, "baseline": "none", "outcome_weight": 0.0}
# Two rollouts of 2 and 1 steps. h is the outcome advantage of outcomes (1, 0): half over the unbiased std √½.
PAIR = ([[0.9, 0.6], [0.2]], [[2, 3], [4]])
h = 0.5 / (math.sqrt(0.5) + 1e-4)
# Scores .9 .6 .2: deviations from their mean 17/30, over their unbiased std.
z1, z2, z3 = (d / (math.sqrt(37 / 300) + 1e-4) for d in (1 / 3, 1 / 30, -11 / 30))
# progrs: 0, −.15, .2 (mean 1/60); verigate: 1.5, .6, .2 (mean 23/30).
b1, b2, b3 = (d / (math.sqrt((1 + 100 + 121) / 3600 / 2) + 1e-4) for d in (-1 / 60, -10 / 60, 11 / 60))
v1, v2, v3 = (d / (math.sqrt((22**2 + 5**2 + 17**2) / 900 / 2) + 1e-4) for d in (22 / 30, -5 / 30, -17 / 30))
# capo: 5 tokens of 2 and 4 of −1 (mean 2/3, variance 5/2); 2, 3, 4 tokens of 1, ½, −½ (mean 1/6, variance 7/16).
c1, c2 = (d / (math.sqrt(2.5) + 1e-4) for d in (4 / 3, -5 / 3))
d1, d2, d3 = (d / (math.sqrt(7 / 16) + 1e-4) for d in (5 / 6, 1 / 3, -2 / 3))
CAPO = {"outcome_weight": 1.0, "process_weight": 0.5, "threshold": 0.6}
f = 0.25 / (math.sqrt(0.125) + 1e-4)  # fapo: 1 and ½
s = 0.35 / (0.7 / math.sqrt(2) + 1e-6)  # srar: .9 and .2 at the first step, ±.7071
mean_gap = 0.275 / (0.275 * math.sqrt(2) + 1e-4)

BY_HAND = [
    ("outcome", {}, (1.0, 0.0), [[h, h], [-h, 0]]),
    ("immediate", {}, (1.0, 0.0), [[h + 0.45, h + 0.3], [-h + 0.1, 0]]),
    ("grpo_ps", {}, (1.0, 0.0), [[z1 + z2 + h, z2 + h], [z3 - h, 0]]),
    ("grpo_ps", HALF_MEAN, (1.0, 0.0), [[(z1 + z2) / 2 + 2 * h, z2 + 2 * h], [z3 - 2 * h, 0]]),
    ("gamma_sum", {"gamma": 0.5}, (1.0, 0.0), [[0.5 + h, -0.1 + h], [-0.5 - h, 0]]),
    # r = .2, .15. Other rollout: r = −.6, T = 4, so b = −.15 and .07.
    ("pure", {"temperature": T3}, (1.0, 0.0), [[2.1, 1.6], [-1.88, 0]]),
    ("pure", {"temperature": T3, "baseline": "step"}, (1.0, 0.0), [[2.55, 1.75], [-1.775, 0]]),
    ("pure", BARE, (1.0, 0.0), [[0.35, 0.15], [-0.6, 0]]),
    ("pure_strict", {}, (1.0, 0.0), [[1.8, 1.8], [-1.8, 0]]),
    ("clip_delta", {"threshold": 0.7}, (1.0, 0.0), [[0.2 + h, 0.1 + h], [-0.3 - h, 0]]),
    ("progress", {"alpha": 2.0}, (1.0, 0.0), [[0.2 + 1 / 3 + h, -0.6 + 1 / 3 + h], [-0.6 + 1 / 3 - h, 0]]),
    ("potential", {}, (1.0, 0.0), [[0.5, 0.1], [-0.5, 0]]),
    # F = .5·.9 − .5, −.9: .5·1 − .05 − .45 = 0.
    ("potential", {"gamma": 0.5}, (1.0, 0.0), [[0.0, 0.1], [-0.5, 0]]),
    ("potential", {"initial": 0.1}, (1.0, 0.0), [[0.9, 0.1], [-0.1, 0]]),
    ("vppo", {}, (1.0, 0.0), [[0.5, 0.5], [-0.5, 0]]),
    # Wrong: α on .9, 0 on .6; by tokens .5·2/5 = .2, against 1: baseline .6.
    ("vppo", {}, (0.0, 1.0), [[-0.1, -0.6], [0.4, 0]]),
    # No score under .6 (.6 itself is no error): α throughout, baseline .75.
    ("vppo", {"threshold": 0.6}, (0.0, 1.0), [[-0.25, -0.25], [0.25, 0]]),
    ("progrs", {}, (0.0, 1.0), [[-h + b1 / 2, -h + b2 / 2], [h + b3 / 2, 0]]),
    ("papo", {}, (1.0, 1.0), [[mean_gap / 2, mean_gap / 2], [-mean_gap / 2, 0]]),
    ("papo", {}, (1.0, 0.0), [[h, h], [-h, 0]]),
    # V₀ is the other rollout's outcome: .9 − 0, 1 − .9; 0 − 1.
    ("vine", {}, (1.0, 0.0), [[0.9, 0.1], [-1.0, 0]]),
    ("vine", {}, (0.0, 1.0), [[-0.1, -0.9], [1.0, 0]]),
    ("capo", {}, (1.0, 0.0), [[c1, c1], [c2, 0]]),
    ("capo", CAPO, (1.0, 0.0), [[d1, d2], [d3, 0]]),
    ("fapo", {}, (1.0, 0.0), [[h, h], [-h, 0]]),
    ("fapo", {}, (1.0, 1.0), [[f, f], [-f, 0]]),
    ("fapo", {"threshold": 0.6}, (1.0, 0.0), [[f, f], [-f, 0]]),
    ("srar", {}, (1.0, 0.0), [[h + s, h], [-h - s, 0]]),
    ("srar", {"process_weight": 0.5}, (1.0, 1.0), [[s / 2, 0], [-s / 2, 0]]),
    ("verigate", {}, (1.0, 0.0), [[h, h], [-h, 0]]),
    ("verigate", {}, (0.0, 0.0), [[v1, v2], [v3, 0]]),
    ("verigate", {}, (1.0, 1.0), [[0, 0], [0, 0]]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "keywords", "outcomes", "by_hand"), BY_HAND)
def test_by_hand(name, keywords, outcomes, by_hand):
    rollouts = rollouts_of([(*PAIR, list(outcomes))])
    torch.testing.assert_close(METHODS[name](rollouts, **keywords), torch.tensor(by_hand).float(), rtol=1e-5, atol=1e-5)


def test_vppo_finds_no_error_before_the_first_scored_step():
    # Fills of (.9 + .2 + .9)/3 < θ before the scored steps. Wrong: α = ½ up to the step of .2; baseline (1 + ¼)/2.
    given, mask = torch.tensor([[NAN, 0.9, 0.2, NAN], [NAN, NAN, NAN, 0.9]]), torch.ones(2, 4, dtype=torch.bool)
    filled, unscored = filled_scores(given, mask, 2)
    rollouts = StepRollouts(filled, mask, mask.long(), torch.tensor([0.0, 1.0]), 2, scored=~unscored)
    by_hand = torch.tensor([[-0.125, -0.125, -0.625, -0.625], [0.375] * 4])
    torch.testing.assert_close(METHODS["vppo"](rollouts), by_hand)


def test_prof_by_hand():
    # Consistency: .9, .5 (correct); .8, .1 and one step of .05, ill-formed: .05 + 10 (incorrect).
    scores = [[0.9, 0.9], [0.5, 0.5], [0.8, 0.8], [0.1, 0.1], [0.05], [0.9, 0.9]]
    group = (scores, [[1] * len(row) for row in scores], [1.0, 1.0, 0.0, 0.0, 0.0, NAN])
    three = 1 / 3 / (math.sqrt(1 / 3) + 1e-4)
    # keep ½ of 6: two correct (the odd one) and the incorrect one least scored.
    kept = METHODS["prof"](rollouts_of([group]))[:, 0]
    torch.testing.assert_close(kept, torch.tensor([three, three, 0, -2 * three, 0, 0]), rtol=1e-5, atol=1e-5)
    # keep 2 of 6: the best correct one against the same.
    kept = METHODS["prof"](rollouts_of([group]), keep=0.3)[:, 0]
    torch.testing.assert_close(kept, torch.tensor([h, 0, 0, -h, 0, 0]), rtol=1e-5, atol=1e-5)
    # Without the penalty the one-step rollout is the least scored.
    kept = METHODS["prof"](rollouts_of([group]), keep=0.3, penalty=0.0)[:, 0]
    torch.testing.assert_close(kept, torch.tensor([h, 0, 0, 0, -h, 0]), rtol=1e-5, atol=1e-5)
    # Two steps are as many as allowed: all of two steps are ill-formed too, and the order is the raw one again.
    kept = METHODS["prof"](rollouts_of([group]), keep=0.3, max_steps=2)[:, 0]
    torch.testing.assert_close(kept, torch.tensor([h, 0, 0, 0, -h, 0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_reference(name, keywords, seed):
    groups = random_groups(seed, missing=0.2 * (seed % 3))
    rollouts = rollouts_of(groups)
    got = METHODS[name](rollouts, **keywords)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected(groups, name, keywords, got.shape[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
@settings(deadline=None, max_examples=40)
@given(
    groups=grouped(),
    padding=st.sampled_from(GARBAGE),
    lengths=st.sampled_from([-7, 0, 10**12]),
    extra=st.integers(0, 3),
)
def test_equals_the_slow_reference_on_any_shape(name, keywords, groups, padding, lengths, extra):  # fmt: skip
    rollouts = rollouts_of(groups, padding, lengths, extra)
    got = METHODS[name](rollouts, **keywords)
    assert not got[~rollouts.step_mask].any()
    # Rounding of nearly equal values is divided by std + 1e-4, hence the absolute tolerance.
    torch.testing.assert_close(got, expected(groups, name, keywords, got.shape[1]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", STATELESS)
def test_other_precisions_are_computed_in_float32(name, dtype):
    groups = [([[0.875, 0.5], [0.25]], [[2, 3], [4]], [0.0, 1.0])]  # exact in all of them
    rollouts = rollouts_of(groups)
    narrow = type(rollouts)(
        rollouts.step_scores.to(dtype),
        rollouts.step_mask,
        rollouts.step_lengths.int(),
        rollouts.outcome_rewards.to(dtype),
        2,
        state_keys=rollouts.state_keys,
    )
    got = METHODS[name](narrow)
    assert got.dtype == torch.float32
    assert torch.equal(got, METHODS[name](rollouts))


def test_keywords_and_defaults_are_the_specified_ones():
    c = {"outcome_weight": 1.0}
    specified = {
        "outcome": {},
        "immediate": {"process_weight": 0.5},
        "grpo_ps": {"reduce": "sum", "baseline": "steps", **c},
        "gamma_sum": {"gamma": 1.0, **c},
        "pure": {"temperature": 0.1, "baseline": "token", **c},
        "pure_strict": c,
        "clip_delta": {"threshold": 0.5, **c},
        "progress": {"alpha": 1.0, "initial": 0.5, **c},
        "potential": {"gamma": 1.0, "initial": None},
        "prof": {"keep": 0.5, "penalty": 10.0, "max_steps": 30},
        "vppo": {"threshold": 0.8, "alpha": 0.5},
        "progrs": {"beta": 0.5},
        "papo": {"beta": 0.5},
        "verigate": {},
        "vine": {},
        "capo": {"outcome_weight": 2.0, "process_weight": 1.0, "threshold": 0.5},
        "fapo": {"penalty": 1.0, "threshold": 0.5},
        "srar": {"process_weight": 1.0},
        "gigpo": {"gamma": 1.0, "state_weight": 1.0, "mode": "mean_norm", "process_weight": 0.0, "neutral": 0.0},
        "mt_grpo": {"form": "aae", "turn_weight": 1.0, "gamma": 1.0, "neutral": 0.0},
        "gtpo": {"gamma": 0.95, "process_weight": 1.0, "neutral": 0.0, "baseline": "steps"},
    }
    for name, method in STATELESS.items():
        first, *rest = inspect.signature(method).parameters.values()
        assert first.name == "rollouts" and all(p.kind is p.KEYWORD_ONLY for p in rest)
        assert {p.name: p.default for p in rest} == specified.pop(name)
    assert specified == {}


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("grpo_ps", {"reduce": "max"}, "reduce: got 'max', expected 'sum' or 'mean'"),
        ("pure", {"baseline": "mean"}, "baseline: got 'mean', expected one of token, step, return, none"),
        ("pure", {"temperature": 0.0}, "temperature: got 0.0, expected > 0"),
        ("prof", {"keep": 0.0}, r"keep: got 0.0, expected a share in \(0, 1\]"),
        ("prof", {"keep": 1.5}, "keep: got 1.5"),
        ("grpo_ps", {"baseline": "token"}, "baseline: got 'token', expected 'steps', or with reduce 'sum'"),
        ("grpo_ps", {"baseline": "return", "reduce": "mean"}, "baseline: got 'return', expected 'steps'"),
        ("gigpo", {"mode": "std"}, "mode: got 'std', expected one of mean_norm, mean_std_norm"),
        ("mt_grpo", {"form": "both"}, "form: got 'both', expected one of aae, cae"),
        ("gtpo", {"baseline": "none"}, "baseline: got 'none', expected one of steps, return"),
    ],
)
def test_bad_keywords_are_refused(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name](rollouts_of([(*PAIR, [1.0, 0.0])]), **keywords)
