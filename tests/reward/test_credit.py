"""Returns, baselines, normalisation, tokens and GAE: hand-worked numbers and identities."""

import pytest
import torch

import reward
from reward.credit import EPSILON

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, True, False]])
REWARDS = torch.tensor([[1.0, 2.0, 4.0], [3.0, -1.0, NAN]])


def close(got, expected, **tolerance):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), **tolerance)


def test_discounted_returns_by_hand():
    close(reward.discounted_returns(REWARDS, MASK, gamma=0.5), [[3.0, 4.0, 4.0], [2.5, -1.0, 0.0]])
    close(reward.discounted_returns(REWARDS, MASK), [[7.0, 6.0, 4.0], [2.0, -1.0, 0.0]])


def test_gamma_zero_returns_the_rewards():
    close(reward.discounted_returns(REWARDS, MASK, gamma=0.0), [[1.0, 2.0, 4.0], [3.0, -1.0, 0.0]])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 64])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.99, 1.0])
def test_returns_obey_their_recursion_and_ignore_padding(steps, gamma):
    rewards = torch.randn(4, steps)
    mask = torch.arange(steps) < torch.tensor([[steps], [1], [max(steps // 2, 1)], [steps]])
    returns = reward.discounted_returns(rewards, mask, gamma=gamma)
    after = torch.nn.functional.pad(returns[:, 1:], (0, 1))
    close(returns, torch.where(mask, rewards + gamma * after, 0), rtol=1e-5, atol=1e-5)
    wider = reward.discounted_returns(
        torch.nn.functional.pad(rewards, (0, 9), value=NAN), torch.nn.functional.pad(mask, (0, 9)), gamma=gamma
    )
    assert torch.equal(wider[:, :steps], returns) and not wider[:, steps:].any()


def test_min_returns_by_hand():
    rewards = torch.tensor([[0.5, -1.0, 0.2, 0.1], [0.3, 0.7, -9.0, NAN]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    close(reward.min_returns(rewards, mask), [[-1.0, -1.0, 0.1, 0.1], [0.3, 0.7, 0.0, 0.0]])


def test_group_means_by_hand():
    values = torch.tensor([[1.0, 2.0], [6.0, NAN], [5.0, 7.0], [9.0, 9.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False], [False, False]])
    close(reward.group_mean_baseline(values, mask, 2), [3.0, 3.0, 0.0, 0.0])
    close(reward.group_mean_baseline(values[:, 0], mask[:, 0], 4), [3.5] * 4)


def test_leave_one_out_by_hand():
    values = torch.tensor([1.0, 3.0, NAN, 8.0, 2.0, NAN])
    mask = ~values.isnan()
    close(reward.leave_one_out_baseline(values, mask, 3), [3.0, 1.0, 2.0, 2.0, 8.0, 5.0])


def test_leave_one_out_of_nobody_is_zero():
    close(reward.leave_one_out_baseline(torch.tensor([5.0]), torch.tensor([True]), 1), [0.0])
    close(reward.leave_one_out_baseline(torch.tensor([5.0, NAN]), torch.tensor([True, False]), 2), [0.0, 5.0])


@pytest.mark.parametrize("group", [2, 3, 8])
def test_leave_one_out_is_the_scaled_centred_value(group):
    values, mask = torch.randn(6 * group), torch.ones(6 * group, dtype=torch.bool)
    centred = values - reward.group_mean_baseline(values, mask, group)
    got = values - reward.leave_one_out_baseline(values, mask, group)
    close(got, group / (group - 1) * centred, rtol=1e-4, atol=1e-5)


def test_token_baseline_by_hand():
    returns, tokens = torch.tensor([2.0, 3.0, 7.0, 1.0, 0.5, 4.0]), torch.tensor([4, 6, 10, 0, 0, 8])
    close(reward.token_baseline(returns, tokens, 3), [10 / 16, 9 / 14, 5 / 10, 4.5 / 8, 5 / 8, 0.0])


def test_group_normalized_by_hand():
    values = torch.tensor([[1.0, 3.0], [5.0, NAN]])
    mask = torch.tensor([[True, True], [True, False]])  # mean 3, unbiased std 2
    close(reward.group_normalized(values, mask, 2), [[-2 / (2 + EPSILON), 0.0], [2 / (2 + EPSILON), 0.0]])
    close(reward.group_normalized(torch.tensor([7.0]), torch.tensor([True]), 1), [0.0])


def test_equal_scores_normalise_to_nothing():
    for value in (0.1, 0.7, 0.9):
        scores, mask = torch.full((6, 31), value), torch.ones(6, 31, dtype=torch.bool)
        assert reward.group_normalized(scores, mask, 3).abs().max() < 1e-8


def test_outcome_advantages_skip_unscorable_rollouts():
    half = 0.5 / (0.5**0.5 + EPSILON)
    got = reward.outcome_advantages(torch.tensor([1.0, NAN, 0.0, NAN, NAN, 1.0]), 3)
    close(got, [half, 0.0, -half, 0.0, 0.0, 0.0])
    close(reward.leave_one_out_outcomes(torch.tensor([1.0, NAN, 0.0, 1.0]), 4), [0.5, 0.0, -1.0, 0.5])


def test_step_means_by_hand():
    values = torch.tensor([[1.0, 3.0], [5.0, NAN], [2.0, 4.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    close(reward.step_means(values, mask), [2.0, 5.0, 3.0])
    weights = torch.tensor([[3, 1], [2, -9], [0, 0]])
    close(reward.step_means(values, mask, weights), [1.5, 5.0, 0.0])


def test_tokens_take_their_steps_value():
    values, lengths = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]), torch.tensor([[2, 0, 3], [1, 0, 0]])
    close(reward.step_to_token(values, lengths, 6), [[1.0, 1.0, 3.0, 3.0, 3.0, 0.0], [4.0, 0, 0, 0, 0, 0]])


def test_tokens_to_step_sums_and_inverts():
    tokens = torch.tensor([[1.0, 2.0, 4.0, 8.0, NAN], [1.0, NAN, NAN, NAN, NAN]])
    lengths = torch.tensor([[1, 0, 3], [1, 0, 0]])
    for precise in (tokens, tokens.bfloat16()):  # the sums are in float32 whatever comes in
        close(reward.tokens_to_step(precise, lengths), [[1.0, 0.0, 14.0], [1.0, 0.0, 0.0]])
    values, lengths = torch.randn(5, 4), torch.randint(0, 6, (5, 4))
    spread = reward.step_to_token(values, lengths, 30)
    close(reward.tokens_to_step(spread, lengths), values * lengths, rtol=1e-5, atol=1e-6)


def test_a_row_may_fill_all_tokens():
    lengths = torch.tensor([[2, 1], [3, 0]])
    close(reward.step_to_token(torch.tensor([[1.0, 2.0], [5.0, 9.0]]), lengths, 3), [[1.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    close(reward.tokens_to_step(torch.ones(2, 3), lengths), [[2.0, 1.0], [3.0, 0.0]])


@pytest.mark.parametrize("lengths", [[[3, 4]], [[-1, 2]]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="expected totals ≤ num_tokens = 6 and lengths ≥ 0"):
        reward.step_to_token(torch.ones(1, 2), torch.tensor(lengths), 6)
    with pytest.raises(ValueError, match="expected totals ≤ num_tokens = 6 and lengths ≥ 0"):
        reward.tokens_to_step(torch.ones(1, 6), torch.tensor(lengths))


def test_gae_by_hand():
    rewards, values = torch.tensor([[1.0, 0.0, 2.0, NAN]]), torch.tensor([[0.5, 1.0, -1.0, NAN]])
    mask = torch.tensor([[True, True, True, False]])
    advantages, returns = reward.generalized_advantage_estimation(rewards, values, mask, gamma=0.5, lam=0.5)
    # δ = [1 + .5·1 − .5, 0 + .5·(−1) − 1, 2 − (−1)] = [1, −1.5, 3]; A₃ = 3, A₂ = −1.5 + .75, A₁ = 1 + .25·(−.75)
    close(advantages, [[0.8125, -0.75, 3.0, 0.0]])
    close(returns, [[1.3125, 0.25, 2.0, 0.0]])


def test_gae_special_cases():
    rewards, values = torch.randn(4, 9), torch.randn(4, 9)
    mask = torch.arange(9) < torch.tensor([[9], [1], [4], [6]])
    gae = reward.generalized_advantage_estimation
    to_go = gae(rewards, torch.zeros(4, 9), mask, gamma=1.0, lam=1.0)
    close(to_go[0], reward.discounted_returns(rewards, mask))
    # λ = 1: the returns do not depend on the values; λ = 0: the one-step temporal difference.
    close(gae(rewards, values, mask, gamma=0.9, lam=1.0)[1], reward.discounted_returns(rewards, mask, gamma=0.9))
    after = torch.nn.functional.pad(torch.where(mask, values, 0)[:, 1:], (0, 1))
    close(gae(rewards, values, mask, gamma=0.9, lam=0.0)[0], torch.where(mask, rewards + 0.9 * after - values, 0))


def test_a_constant_value_only_shifts_the_last_terms_and_whitening_removes_it():
    rewards, mask = torch.randn(3, 7), torch.ones(3, 7, dtype=torch.bool)
    gae = reward.generalized_advantage_estimation
    plain = gae(rewards, torch.zeros(3, 7), mask, gamma=1.0, lam=1.0)[0]
    shifted = gae(rewards, torch.full((3, 7), 5.0), mask, gamma=1.0, lam=1.0)[0]
    close((shifted - shifted.mean()) / shifted.std(), (plain - plain.mean()) / plain.std(), rtol=1e-4, atol=1e-5)


def test_gae_rows_do_not_see_each_other_or_their_padding():
    rewards, values = torch.randn(2, 6), torch.randn(2, 6)
    mask = torch.tensor([[False, True, True, True, False, False], [True] * 6])
    gae = reward.generalized_advantage_estimation
    both = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    for garbage in (NAN, 1e9):
        dirty = gae(rewards.masked_fill(~mask, garbage), values.masked_fill(~mask, garbage), mask, gamma=0.9, lam=0.8)
        assert torch.equal(dirty[0], both[0]) and torch.equal(dirty[1], both[1])
    inner = mask[0, None, 1:4]
    alone = gae(rewards[:1, 1:4], values[:1, 1:4], inner, gamma=0.9, lam=0.8)
    close(both[0][:1, 1:4], alone[0])
    assert not both[0][~mask].any() and not both[1][~mask].any()


def test_gae_refuses_a_gap():
    ones = torch.ones(1, 3)
    with pytest.raises(ValueError, match="expected contiguous real tokens"):
        reward.generalized_advantage_estimation(ones, ones, torch.tensor([[True, False, True]]), gamma=1.0, lam=1.0)
