"""`trusted` and the approval behind it: hand-worked numbers, a slow count, and what trust must not be fooled by."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings

from reward import METHODS, StepRollouts, approval_lift, approval_updated, initial_approval
from reward.rollouts import filled_scores
from tests.reward.method_cases import GARBAGE, NAN, grouped, random_groups, rollouts_of

trusted = METHODS["trusted"]
# Approved and right; approved and wrong; not approved (a score of exactly ½ is a wrong step) and right; and wrong.
FOUR = ([[0.9, 0.6], [0.8], [0.5], [0.9, 0.1]], [[2, 3], [4], [1], [1, 1]], [1.0, 0.0, 1.0, 0.0])
NEVER_FLAGGED_WRONG = ([[0.9], [0.8], [0.2], [0.3]], [[1]] * 4, [1.0, 1.0, 0.0, 0.0])


def after(*batches, **keywords):
    """The memory after these batches of groups."""
    memory = initial_approval()
    for groups in batches:
        memory = approval_updated(rollouts_of(groups), memory, **keywords)
    return memory


def floats(memory):
    return {name: value.item() for name, value in memory.items()}


def test_counts_by_hand():
    assert floats(after([FOUR])) == {"verified": 4.0, "right": 2.0, "approved": 2.0, "approved_right": 1.0}
    assert floats(after([FOUR], threshold=0.45))["approved"] == 3.0


def test_lift_by_hand():
    # b = 2/4; q = (1 + ½)/(2 + 1) = ½: approval says nothing.
    assert approval_lift(after([FOUR])).item() == pytest.approx(0.0)
    # b = ½, both approved ones right: q = (2 + ½)/3 = 5/6, lift = (5/6 − ½)/½ = 2/3; se = √(5/6·1/6 / 3).
    memory = after([NEVER_FLAGGED_WRONG])
    assert approval_lift(memory).item() == pytest.approx(2 / 3)
    error = math.sqrt(5 / 6 / 6 / 3)
    assert approval_lift(memory, caution=0.5).item() == pytest.approx((5 / 6 - 0.5 * error - 0.5) / 0.5)


def test_advantages_by_hand():
    # c = 0, 0, −.3, −.2, mean −.125; τ = min(1, 4·(5/6 − se − ½)/½) = min(1, 4·(.667 − .43)) with se = .2152.
    advantages, _ = trusted(rollouts_of([NEVER_FLAGGED_WRONG]), initial_approval())
    trust = min(1.0, 4 * (5 / 6 - math.sqrt(5 / 6 / 6 / 3) - 0.5) / 0.5)
    a = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    wanted = [a + trust * 0.125, a + trust * 0.125, -a - trust * 0.175, -a - trust * 0.075]
    assert advantages.flatten().tolist() == pytest.approx(wanted, abs=1e-5)


def test_with_full_trust_it_is_clip_delta():
    full = {name: torch.tensor(value) for name, value in
            {"verified": 1e6, "right": 5e5, "approved": 5e5, "approved_right": 5e5}.items()}  # fmt: skip
    rollouts = rollouts_of(random_groups(7))
    got, _ = trusted(rollouts, full, window=1e9)
    torch.testing.assert_close(got, METHODS["clip_delta"](rollouts), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(groups=grouped(max_prompts=4))
def test_counts_equal_a_slow_count(groups):
    rollouts = rollouts_of(groups)
    wanted = dict.fromkeys(initial_approval(), 0.0)
    for i in range(len(rollouts.step_scores)):
        if not rollouts.scorable[i]:
            continue
        approved = all(p > 0.5 for p in rollouts.step_scores[i][rollouts.step_mask[i]].tolist())
        right = bool(rollouts.correct[i])
        for name, holds in (("verified", True), ("right", right), ("approved", approved),
                            ("approved_right", approved and right)):  # fmt: skip
            wanted[name] += holds
    assert floats(after(groups)) == wanted


def test_the_memory_fades_by_verified_rollouts():
    once, twice = after([FOUR], window=10.0), after([FOUR], [FOUR], window=10.0)
    for name in once:
        assert twice[name].item() == pytest.approx(once[name].item() * (1 + math.exp(-4 / 10)))
    unverified = (FOUR[0], FOUR[1], [NAN] * 4)
    assert after([FOUR], [unverified], window=10.0) == once  # what says nothing fades nothing


@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_never_leaks(garbage):
    groups = random_groups(3)
    clean = trusted(rollouts_of(groups, 0.0, 0), initial_approval())
    dirty = trusted(rollouts_of(groups, garbage, 12345, extra=2), initial_approval())
    torch.testing.assert_close(dirty[0][:, :-2], clean[0], rtol=1e-6, atol=1e-7)  # sums over more cells round anew
    assert not dirty[0][:, -2:].any() and dirty[1] == clean[1]


def test_before_any_evidence_it_is_outcome_only():
    nothing_known = [(scores, lengths, [NAN] * 6) for scores, lengths, _ in random_groups(4)]
    rollouts = rollouts_of(nothing_known)
    advantages, memory = trusted(rollouts, initial_approval())
    assert torch.equal(advantages, METHODS["outcome"](rollouts)) and memory == initial_approval()


def partly_scored(scores, outcomes):
    """One group of rollouts of equal length; a score of NaN is one that the scorer did not give."""
    given = torch.tensor(scores)
    mask = torch.ones_like(given, dtype=torch.bool)
    filled, unscored = filled_scores(given, mask, len(scores))
    return StepRollouts(filled, mask, mask.long(), torch.tensor(outcomes), len(scores), scored=~unscored)


def test_what_the_scorer_left_out_is_no_evidence():
    # The last step of the first rollout, the only step of the second; the third has no score at all.
    rollouts = partly_scored([[NAN, 0.9], [NAN, 0.1], [NAN, NAN]], [1.0, 0.0, 0.0])
    assert rollouts.step_scores[:, 0].tolist() == pytest.approx([0.5] * 3)  # fills, at or below the threshold
    memory = approval_updated(rollouts, initial_approval())
    assert floats(memory) == {"verified": 2.0, "right": 1.0, "approved": 1.0, "approved_right": 1.0}


def test_what_the_scorer_left_out_is_given_no_credit():
    # Scored steps: .9 and .1, clipped 0 and −.4, mean −.2; every other advantage is that of the outcome.
    rollouts = partly_scored([[NAN, 0.9], [NAN, 0.1], [NAN, NAN]], [1.0, 0.0, 0.0])
    memory = {"verified": 1e6, "right": 5e5, "approved": 5e5, "approved_right": 5e5}
    advantages, _ = trusted(rollouts, {name: torch.tensor(value) for name, value in memory.items()}, window=1e9)
    process = advantages - METHODS["outcome"](rollouts)
    torch.testing.assert_close(process, torch.tensor([[0, 0.2], [0, -0.2], [0, 0]]), atol=1e-4, rtol=0)


def test_a_step_left_out_after_a_scored_one_has_the_score_before_it():
    # A judge of one pass stops at the first error: c = 0, −.3, and −.3 carried on; the mean of the six is −.1.
    rollouts = partly_scored([[0.9, 0.2, NAN], [0.9, 0.9, 0.9]], [0.0, 1.0])
    memory = {"verified": 1e6, "right": 5e5, "approved": 5e5, "approved_right": 5e5}
    advantages, _ = trusted(rollouts, {name: torch.tensor(value) for name, value in memory.items()}, window=1e9)
    process = advantages - METHODS["outcome"](rollouts)
    torch.testing.assert_close(process, torch.tensor([[0.1, -0.2, -0.2], [0.1] * 3]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_policy_that_is_never_or_always_right_earns_the_prm_no_trust(outcome):
    groups = [(scores, lengths, [outcome] * 6) for scores, lengths, _ in random_groups(4)]
    assert not trusted(rollouts_of(groups), initial_approval())[0].any()


def scored_by(rule, seed, prompts=64):
    """Groups of 8 whose scores ``rule(right, k)`` gives, right with probability ½."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for _ in range(prompts):
        outcomes = [float(torch.rand((), generator=generator) < 0.5) for _ in range(8)]
        scores = [[rule(o, k, generator) for k in range(3)] for o in outcomes]
        groups.append((scores, [[1] * 3] * 8, outcomes))
    return groups


def uniform(generator):
    return float(torch.rand((), generator=generator))


@pytest.mark.parametrize(
    ("rule", "least", "most"),
    [
        (lambda right, k, g: 0.9 if right else 0.1, 1.0, 1.0),  # a PRM that knows
        (lambda right, k, g: 0.1 if right else 0.9, 0.0, 0.0),  # the same, inverted
        (lambda right, k, g: 0.75, 0.0, 0.0),  # a constant that approves everything
        (lambda right, k, g: 0.25, 0.0, 0.0),  # a constant that approves nothing
        (lambda right, k, g: 0.6 + 0.1 * k, 0.0, 0.0),  # rises with the position
        (lambda right, k, g: uniform(g), 0.0, 0.2),  # noise
    ],
)
def test_trust_is_earned_by_knowing_only(rule, least, most):
    """τ, read off the advantage of a step that scores 1 against another's 0 in a batch without outcomes."""
    probe = rollouts_of([([[1.0], [0.0]], [[1], [1]], [NAN, NAN])])  # clipped 0 and −½: ±¼ around their mean
    trusts = []
    for seed in range(5):
        memory = after(scored_by(rule, seed))
        trusts.append(4 * trusted(probe, memory)[0][0, 0].item())
    assert all(least - 1e-6 <= trust <= 1 + 1e-6 for trust in trusts)
    assert sum(trusts) / 5 <= most + 1e-6


def test_nothing_is_written_into_what_it_was_given():
    memory = after([FOUR])
    copy = {name: value.clone() for name, value in memory.items()}
    trusted(rollouts_of(random_groups(5)), memory)
    assert memory == copy


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"slope": -1.0}, "slope: got -1.0, expected at least 0"),
        ({"caution": -0.5}, "caution: got -0.5, expected at least 0"),
        ({"window": 0.0}, "window: got 0.0, expected a number of rollouts above 0"),
    ],
)
def test_bad_keywords_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        trusted(rollouts_of([FOUR]), initial_approval(), **keywords)


def test_keywords_and_defaults_are_the_specified_ones():
    given = {p.name: p.default for p in inspect.signature(trusted).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert given == {"process_weight": 1.0, "threshold": 0.5, "slope": 4.0, "caution": 1.0, "window": 512.0}
