"""PPO's pure functions: numbers worked by hand, slow loops, identities, and garbage behind the mask."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from reward import generalized_advantage_estimation
from reward.ppo import clipped_value_loss, explained_variance, kl_penalty, masked_sums, token_rewards, whitened

NAN = float("nan")


def test_token_rewards_by_hand():
    """Steps of 2 and 3 tokens, and one of 4: rewards land on tokens 1 and 4, and 3; outcomes on the last tokens."""
    rewards = token_rewards(
        torch.tensor([[0.5, 0.25], [-1.0, 0.0]]),
        torch.tensor([[2, 3], [4, 0]]),
        torch.tensor([1.0, 0.5]),
        torch.tensor([[True] * 5, [True] * 4 + [False]]),
    )
    assert rewards.tolist() == [[0, 0.5, 0, 0, 1.25], [0, 0, 0, -0.5, 0]]


def test_token_rewards_of_odd_rollouts():
    """An unscorable outcome is 0; no tokens, no reward; a mask cut to nothing (truncated completions) too."""
    mask = torch.tensor([[True, True], [False, False]])
    rewards = token_rewards(torch.tensor([[0.3], [0.9]]), torch.tensor([[2], [0]]), torch.tensor([NAN, 1.0]), mask)
    torch.testing.assert_close(rewards, torch.tensor([[0, 0.3], [0, 0]]))


def test_an_empty_step_keeps_its_reward():
    rewards = token_rewards(
        torch.tensor([[0.5, 0.25, 0.0]]), torch.tensor([[2, 0, 1]]), torch.tensor([0.0]), torch.ones(1, 3).bool()
    )
    assert rewards.tolist() == [[0, 0.75, 0]]


def test_kl_penalty_by_hand():
    mask = torch.tensor([[True, True, False]])
    kl = kl_penalty(torch.tensor([[-1.0, -2.0, NAN]]), torch.tensor([[-1.5, -1.0, 3.0]]), mask)
    assert kl.tolist() == [[0.5, -1.0, 0.0]]


def test_whitened_by_hand_and_over_two_ranks():
    """1, 2, 3, 6: mean 3, unbiased variance 14/3. Split over two ranks, the sums add up to the same numbers."""
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, NAN]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    sums = masked_sums(values, mask)
    assert sums.tolist() == [4, 12, 50]
    white = whitened(values, mask, sums)
    expected = torch.tensor([[-2.0, -1.0, 0], [0, 3.0, 0]]) / math.sqrt(14 / 3)
    torch.testing.assert_close(white, expected)
    both = masked_sums(values[:1], mask[:1]) + masked_sums(values[1:], mask[1:])
    torch.testing.assert_close(whitened(values[:1], mask[:1], both), expected[:1])


def test_whitening_a_constant_and_a_single_value_gives_zero():
    mask = torch.tensor([[True, True]])
    constant = torch.full((1, 2), 0.7)
    assert whitened(constant, mask, masked_sums(constant, mask)).abs().max() < 1e-6
    one = torch.tensor([[True, False]])
    assert whitened(constant, one, masked_sums(constant, one)).tolist() == [[0, 0]]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(-5, 5))
def test_a_constant_value_is_removed_by_whitening(seed, constant):
    """γ = λ = 1: V = c everywhere subtracts c from every advantage, and whitening takes it away again."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(3, 6, generator=generator)
    mask = torch.arange(6) < torch.randint(1, 7, (3, 1), generator=generator)

    def white(values):
        advantages, _ = generalized_advantage_estimation(rewards * mask, values, mask, gamma=1.0, lam=1.0)
        return whitened(advantages, mask, masked_sums(advantages, mask))

    torch.testing.assert_close(white(torch.full((3, 6), constant)), white(torch.zeros(3, 6)), atol=1e-4, rtol=1e-4)


def test_value_loss_by_hand():
    """V_old = 0, ε = 0.2. R = 1: V = 0.5 is clipped to 0.2 and the clipped error is the larger, ½·0.8² = 0.32.
    R = 0, V = 0.5: the plain error is the larger, ½·0.5² = 0.125. V = 0.1 is inside: ½·0.9² = 0.405."""
    values = torch.tensor([[0.5, 0.5, 0.1, NAN]])
    returns = torch.tensor([[1.0, 0.0, 1.0, NAN]])
    mask = torch.tensor([[True, True, True, False]])
    loss, clipped = clipped_value_loss(values, torch.zeros(1, 4), returns, mask, clip=0.2)
    torch.testing.assert_close(loss, torch.tensor([[0.32, 0.125, 0.405, 0.0]]))
    assert clipped.tolist() == [[True, False, False, False]]
    plain, none = clipped_value_loss(values, torch.zeros(1, 4), returns, mask, clip=None)
    torch.testing.assert_close(plain, torch.tensor([[0.125, 0.125, 0.405, 0.0]]))
    assert not none.any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.01, 2))
def test_value_loss_equals_a_slow_loop(seed, clip):
    generator = torch.Generator().manual_seed(seed)
    values, old, returns = torch.randn(3, 2, 5, generator=generator)
    mask = torch.rand(2, 5, generator=generator) > 0.3
    loss, clipped = clipped_value_loss(values, old, returns, mask, clip=clip)
    for b in range(2):
        for t in range(5):
            v, o, r = values[b, t].item(), old[b, t].item(), returns[b, t].item()
            near = min(max(v, o - clip), o + clip)
            slow = 0.5 * max((v - r) ** 2, (near - r) ** 2) if mask[b, t] else 0.0
            assert loss[b, t].item() == pytest.approx(slow, rel=1e-4, abs=1e-6)
            if abs((near - r) ** 2 - (v - r) ** 2) > 1e-4:
                assert bool(clipped[b, t]) == (bool(mask[b, t]) and (near - r) ** 2 > (v - r) ** 2)


def test_no_gradient_from_a_clipped_value_or_a_masked_one():
    values = torch.tensor([[0.5, 0.1, 7.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss, _ = clipped_value_loss(values, torch.zeros(1, 3), torch.tensor([[1.0, 1.0, NAN]]), mask, clip=0.2)
    loss.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([[0.0, -0.9, 0.0]]))


def test_explained_variance():
    returns, mask = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.ones(1, 4).bool()

    def explained(values):
        return explained_variance(masked_sums(returns, mask), masked_sums(returns - values, mask))

    assert explained(returns) == 1
    assert explained(torch.full((1, 4), 9.0)) == pytest.approx(0)
    assert explained(-returns) == pytest.approx(1 - 4)
    assert explained(returns / 2) == pytest.approx(0.75)
    flat = torch.ones(1, 4)
    assert math.isnan(explained_variance(masked_sums(flat, mask), masked_sums(flat - returns, mask)))
