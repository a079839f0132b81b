"""`trusted` and its trust: hand-worked numbers, the slow reference, and what trust must not be fooled by."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings

import reward
from reward import METHODS
from reward.trust import credit_correlation, initial_trust, trust_updated
from tests.reward import method_reference as reference
from tests.reward.method_cases import GARBAGE, NAN, grouped, random_groups, rollouts_of

trusted = METHODS["trusted"]
# Two rollouts a group. Position 1: .9 against .5; position 2: only the first is there, so it has no credit.
PAIR = ([[0.9, 0.6], [0.5]], [[2, 3], [4]])


def after(*batches, **keywords):
    """The memory after these batches of groups."""
    memory = initial_trust()
    for groups in batches:
        memory = trust_updated(rollouts_of(groups), memory, **keywords)
    return memory


def test_positional_advantages_by_hand():
    rollouts = rollouts_of([([[0.9, 0.6, 0.3], [0.5, 0.2], [0.1]], [[1] * 3, [1] * 2, [1]], [1.0, 0.0, 0.0])])
    got = reward.positional_advantages(rollouts.step_scores, rollouts.step_mask, 3)
    wanted = [[0.9 - 0.3, 0.4, 0.0], [0.5 - 0.5, -0.4, 0.0], [0.1 - 0.7, 0.0, 0.0]]
    torch.testing.assert_close(got, torch.tensor(wanted))


@settings(deadline=None, max_examples=60)
@given(groups=grouped())
def test_positional_advantages_equal_the_slow_reference(groups):
    rollouts = rollouts_of(groups)
    got = reward.positional_advantages(rollouts.step_scores, rollouts.step_mask, rollouts.num_generations)
    rows = [row for group in groups for row in reference.positional(reference.Group(*group))]
    wanted = torch.tensor([row + [0.0] * (got.shape[1] - len(row)) for row in rows])
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7])
def test_equal_scores_leave_exactly_no_positional_advantage(score):
    counts = [5, 2, 5, 4, 5, 4, 5, 5]  # groups of 8, 7 and 5 at the positions: means of them round
    group = ([[score] * count for count in counts], [[1] * count for count in counts], [1.0] + [0.0] * 7)
    rollouts = rollouts_of([group])
    assert not reward.positional_advantages(rollouts.step_scores, rollouts.step_mask, 8).any()


def test_a_further_step_is_neither_charged_nor_paid():
    """Two rollouts alike but for one more step: a sum of centred scores charges it, one term per step does not."""
    groups = [([[0.8, 0.8], [0.8], [0.8]], [[1, 1], [1], [1]], [1.0, 1.0, 1.0])]
    rollouts = rollouts_of(groups)
    assert not reward.positional_advantages(rollouts.step_scores, rollouts.step_mask, 3).any()
    assert not trusted(rollouts, after(scored_by(lambda right, k, g: 0.9 if right else 0.1, 0)))[0].any()
    # grpo_ps, where the scores differ: the first step of the longer rollout pays for the second one's worse score.
    uneven = rollouts_of([([[0.8, 0.2], [0.8], [0.8]], [[1, 1], [1], [1]], [1.0, 1.0, 1.0])])
    assert METHODS["grpo_ps"](uneven)[0, 0] < METHODS["grpo_ps"](uneven)[1, 0]
    fixed, _ = trusted(uneven, after(scored_by(lambda right, k, g: 0.9 if right else 0.1, 0)))
    assert fixed[0, 0] == fixed[1, 0] == 0


def test_correlation_by_hand():
    # Credits (.4, −.4) with outcomes (1, 0): ρ = 1 after one group. A second one, the other way round and with half the
    # credit: product .4·… = .8/2 − .4/2 = .2, credit .32 + .08 = .4, outcome .5 + .5 = 1.
    first, second = (*PAIR, [1.0, 0.0]), ([[0.3], [0.1]], [[1], [1]], [0.0, 1.0])
    rho, error = credit_correlation(after([first]))
    assert rho.item() == pytest.approx(1.0) and error.item() == pytest.approx(0.0, abs=1e-6)
    memory = after([first, second])
    assert {name: round(value.item(), 6) for name, value in memory.items()} == {
        "product": 0.2, "credit": 0.4, "outcome": 1.0, "freedom": 2.0,
    }  # fmt: skip
    rho, error = credit_correlation(memory)
    assert rho.item() == pytest.approx(0.2 / math.sqrt(0.4))
    assert error.item() == pytest.approx((1 - 0.04 / 0.4) / math.sqrt(2))


def test_advantages_by_hand():
    # ρ = 1, so τ = 1 at any slope ≥ 1: the outcome ± h and half of each credit (±.4; nobody else has a step 2).
    advantages, _ = trusted(rollouts_of([(*PAIR, [1.0, 0.0])]), initial_trust())
    h = 0.5 / (math.sqrt(0.5) + 1e-4)
    torch.testing.assert_close(advantages, torch.tensor([[h + 0.2, h], [-h - 0.2, 0.0]]), rtol=1e-5, atol=1e-5)


def test_trust_is_the_cautious_slope_of_the_correlation_by_hand():
    # ρ = .2/√.4 and se = .9/√2 as above. An unverified batch adds nothing: a step's advantage is ±w·τ, 1 against 0.
    memory = after([(*PAIR, [1.0, 0.0]), ([[0.3], [0.1]], [[1], [1]], [0.0, 1.0])])
    probe = rollouts_of([([[1.0], [0.0]], [[1], [1]], [NAN, NAN])])
    rho, error = 0.2 / math.sqrt(0.4), 0.9 / math.sqrt(2)
    advantages, _ = trusted(probe, memory, process_weight=0.5, slope=2.0, caution=0.25)
    wanted = 0.5 * 2 * (rho - 0.25 * error)
    assert advantages.flatten().tolist() == pytest.approx([wanted, -wanted])
    assert not trusted(probe, memory, slope=2.0, caution=0.5)[0].any()  # ρ < caution·se


@settings(deadline=None, max_examples=60)
@given(groups=grouped(max_prompts=4))
def test_correlation_equals_the_slow_reference(groups):
    memory = after(groups)
    rho, freedom = reference.correlation([reference.Group(*group) for group in groups])
    assert memory["freedom"].item() == freedom
    assert credit_correlation(memory)[0].item() == pytest.approx(rho, abs=1e-3)


def test_the_memory_fades_by_counted_rollouts():
    group = (*PAIR, [1.0, 0.0])
    all_right = (*PAIR, [1.0, 1.0])
    once = after([group], window=10.0)
    twice = after([group], [group], window=10.0)
    for name in once:
        assert twice[name].item() == pytest.approx(once[name].item() * (1 + math.exp(-2 / 10)))
    # What says nothing fades nothing.
    assert after([group], [all_right], [(*PAIR, [1.0, NAN])], window=10.0) == once


@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_never_leaks(garbage):
    groups = random_groups(3)
    clean = trusted(rollouts_of(groups, 0.0, 0), initial_trust())
    dirty = trusted(rollouts_of(groups, garbage, 12345, extra=2), initial_trust())
    assert torch.equal(dirty[0][:, :-2], clean[0]) and dirty[1] == clean[1]


def test_before_any_evidence_it_is_outcome_only():
    nothing_known = [(scores, lengths, [NAN] * 6) for scores, lengths, _ in random_groups(4)]
    rollouts = rollouts_of(nothing_known)
    advantages, memory = trusted(rollouts, initial_trust())
    assert torch.equal(advantages, METHODS["outcome"](rollouts)) and memory == initial_trust()


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
        (lambda right, k, g: 0.75, 0.0, 0.0),  # a constant
        (lambda right, k, g: 0.2 + 0.2 * k, 0.0, 0.0),  # rises with the position
        (lambda right, k, g: uniform(g), 0.0, 0.15),  # noise
    ],
)
def test_trust_is_earned_by_knowing_only(rule, least, most):
    """τ, read off the advantage of a step that scores 1 against another's 0 in a batch without outcomes."""
    probe = rollouts_of([([[1.0], [0.0]], [[1], [1]], [NAN, NAN])])
    trusts = []
    for seed in range(5):
        memory = after(scored_by(rule, seed))
        trusts.append(trusted(probe, memory, process_weight=1.0)[0][0, 0].item())
    assert all(least - 1e-6 <= trust <= 1 for trust in trusts)
    assert sum(trusts) / 5 <= most + 1e-6


def test_nothing_is_written_into_what_it_was_given():
    memory = after([(*PAIR, [1.0, 0.0])])
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
        trusted(rollouts_of([(*PAIR, [1.0, 0.0])]), initial_trust(), **keywords)


def test_keywords_and_defaults_are_the_specified_ones():
    given = {p.name: p.default for p in inspect.signature(trusted).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert given == {"process_weight": 0.5, "slope": 3.0, "caution": 1.0, "window": 512.0}
