"""The methods for turns: hand-worked numbers, what they reduce to, and turns that nobody scored."""

import math

import pytest
import torch

from reward import METHODS, StepRollouts, turn_rewards, turn_rewards_and_outcome, within_states

NAN = float("nan")
h = 0.5 / (math.sqrt(0.5) + 1e-4)  # two values 1 apart, normalised with the unbiased std


def episodes(scores, outcomes, states=None, scored=None, group=2):
    """Rows of scores of any length → StepRollouts."""
    steps = max(map(len, scores))

    def table(rows, padding):
        return torch.tensor([list(row) + [padding] * (steps - len(row)) for row in rows])

    mask = table([[True] * len(row) for row in scores], False)
    return StepRollouts(
        table(scores, NAN),
        mask,
        mask.long(),
        torch.tensor(outcomes),
        group,
        scored=None if scored is None else table(scored, False),
        state_keys=None if states is None else table(states, -9),
    )


def close(got, wanted, atol=1e-4):
    torch.testing.assert_close(got, torch.tensor(wanted).float(), rtol=1e-4, atol=atol)


TWO = ([[0.5, 0.5, 0.5], [0.5, 0.5]], [1.0, 0.0])
STATES = [[0, 1, 2], [0, 1]]


def test_gigpo_by_hand():
    # Over 5 steps mean R = .6. γ = ½: G = ¼, ½, 1 and 0, 0; at state 0 mean ⅛, at state 1 ¼, state 2 is met once.
    rollouts = episodes(*TWO, STATES)
    close(METHODS["gigpo"](rollouts, gamma=0.5), [[0.525, 0.65, 0.4], [-0.725, -0.85, 0.0]])
    close(METHODS["gigpo"](rollouts, gamma=0.5, state_weight=0.0), [[0.4] * 3, [-0.6, -0.6, 0.0]])
    # Scaled: the std of three 1s and two 0s is √.3; two values at a state are ±1/√2.
    e, s = 1 / (math.sqrt(0.3) + 1e-6), 1 / math.sqrt(2)
    wanted = [[0.4 * e + s, 0.4 * e + s, 0.4 * e], [-0.6 * e - s, -0.6 * e - s, 0.0]]
    close(METHODS["gigpo"](rollouts, gamma=0.5, mode="mean_std_norm"), wanted)


def test_gigpo_pays_scored_turns_only_where_asked():
    rollouts = episodes([[0.9, 0.2], [0.1, 0.2]], [1.0, 1.0], [[0, 1], [0, 1]], [[True, False], [True, False]])
    assert not METHODS["gigpo"](rollouts).any()
    # R = 1.9 and 1.1, mean 1.5; at state 0 the same once more, at state 1 both have 1 to come.
    close(METHODS["gigpo"](rollouts, process_weight=1.0), [[0.8, 0.4], [-0.8, -0.4]])
    close(METHODS["gigpo"](rollouts, process_weight=1.0, neutral=0.5), [[0.8, 0.4], [-0.8, -0.4]])


def test_gigpo_without_states_is_refused_and_with_unknown_ones_is_the_outcome():
    with pytest.raises(ValueError, match=r"state_keys: got none, expected \(B, K\)"):
        METHODS["gigpo"](episodes(*TWO))
    unknown = METHODS["gigpo"](episodes(*TWO, [[-1] * 3, [-1] * 2]))
    close(unknown, [[0.4] * 3, [-0.6, -0.6, 0.0]])


def test_states_are_of_their_group_and_any_number_will_do():
    one = episodes(*TWO, STATES)
    both = episodes(TWO[0] * 2, [1.0, 0.0, 0.0, 0.0], STATES * 2)
    assert torch.equal(METHODS["gigpo"](both)[:2], METHODS["gigpo"](one)) and not METHODS["gigpo"](both)[2:].any()
    named = episodes(*TWO, [[2**62, 5, 7], [2**62, 5]])
    assert torch.equal(METHODS["gigpo"](named), METHODS["gigpo"](one))


def test_a_rollout_that_comes_back_to_a_state_is_compared_with_itself():
    values, mask = torch.tensor([[1.0, 4.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    close(within_states(values, mask, torch.tensor([[3, 3, 8]]), 1), [[-1.5, 1.5, 0.0]])


def test_equal_values_leave_exactly_nothing_at_a_state():
    values, mask = torch.full((6, 7), 0.1), torch.ones(6, 7, dtype=torch.bool)
    assert within_states(values, mask, torch.zeros(6, 7).long(), 3, scaled=True).abs().max() < 1e-6


def test_mt_grpo_of_one_call_is_the_published_form():
    # One scored call, then the answer: before its result n(R^O) + λ·n(R^T), after it n(R^O).
    calls = episodes([[0.7, 0.0], [0.2, 0.0]], [1.0, 0.0], scored=[[True, False], [True, False]])
    t = 0.25 / (0.25 * math.sqrt(2) + 1e-4)
    close(METHODS["mt_grpo"](calls, turn_weight=2.0), [[h + 2 * t, h], [-h - 2 * t, -h]])
    # "cae": R^T + γ·R^O = 1.2 and .2 before it, γ·R^O = ½ and 0 after it.
    b = 0.5 / (0.5 * math.sqrt(2) + 1e-4)
    close(METHODS["mt_grpo"](calls, form="cae", gamma=0.5), [[b, t], [-b, -t]])


def test_mt_grpo_counts_an_ended_rollout_with_nothing_to_come():
    rollouts = episodes([[0.8, 0.8], [0.8]], [1.0, 1.0])
    first, second = 0.4 / (0.4 * math.sqrt(2) + 1e-4), 0.4 / (0.4 * math.sqrt(2) + 1e-4)
    close(METHODS["mt_grpo"](rollouts), [[first, second], [-first, 0.0]])
    # ν = ½: .6 and .3 at the first step, .3 and nothing at the second.
    close(METHODS["mt_grpo"](rollouts, neutral=0.5), [[first, second], [-first, 0.0]], atol=1e-3)
    assert not METHODS["mt_grpo"](rollouts, neutral=0.8).abs().gt(1e-3).any()


def test_gtpo_by_hand():
    # r = .5, .5 + 1 and .5: with γ = ½ G = 1.25, 1.5 and .5, mean 13/12.
    rollouts = episodes([[0.5, 0.5], [0.5]], [1.0, 0.0])
    spread = math.sqrt(((1 / 6) ** 2 + (5 / 12) ** 2 + (7 / 12) ** 2) / 2) + 1e-4
    close(METHODS["gtpo"](rollouts, gamma=0.5), [[1 / 6 / spread, 5 / 12 / spread], [-7 / 12 / spread, 0.0]])
    # Against the other rollout from the same step; the second has ended with the outcome 0.
    close(METHODS["gtpo"](rollouts, gamma=0.5, baseline="return"), [[0.75, 1.5], [-0.75, 0.0]])


@pytest.mark.parametrize("name", ["mt_grpo", "gtpo"])
def test_turns_that_nobody_scored_leave_the_outcome(name):
    unscored = [[False] * 3, [False] * 2]
    keywords = {"gamma": 1.0} if name == "gtpo" else {}
    got = METHODS[name](episodes(*TWO, scored=unscored), **keywords)
    plain = METHODS["gtpo"](episodes([[0.0] * 3, [0.0] * 2], TWO[1]), gamma=1.0)
    close(got, (METHODS["outcome"](episodes(*TWO)) if name == "mt_grpo" else plain).tolist())


def test_what_a_turn_is_paid():
    rollouts = episodes([[0.9, 0.3], [0.6]], [1.0, NAN], scored=[[True, False], [True]])
    close(turn_rewards(rollouts, neutral=0.5), [[0.4, 0.0], [0.1, 0.0]])
    rewards, judged = turn_rewards_and_outcome(rollouts, process_weight=2.0, neutral=0.5)
    close(rewards, [[0.8, 1.0], [0.2, 0.0]])
    assert judged.tolist() == [[True, True], [False, False]]
