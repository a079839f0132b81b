"""Positional credit and its correlation with outcomes: hand-worked numbers and the slow reference."""

import math

import pytest
import torch
from hypothesis import given, settings

import reward
from reward import METHODS
from reward.trust import credit_correlation, initial_trust, trust_updated
from tests.reward import method_reference as reference
from tests.reward.method_cases import NAN, grouped, rollouts_of

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
    # grpo_ps, where the scores differ: the first step of the longer rollout pays for the second one's worse score.
    uneven = rollouts_of([([[0.8, 0.2], [0.8], [0.8]], [[1, 1], [1], [1]], [1.0, 1.0, 1.0])])
    assert METHODS["grpo_ps"](uneven)[0, 0] < METHODS["grpo_ps"](uneven)[1, 0]
    credit = reward.positional_advantages(uneven.step_scores, uneven.step_mask, 3)
    assert credit[0, 0] == credit[1, 0] == 0


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
