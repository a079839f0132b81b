"""Whether a method rewards writing on for its own sake: the expected gradient, over all that a small policy can do.

A policy that stops after each step with probability ½, or goes on, up to three steps. For every combination of lengths
of a group the method gives its advantages, and Σ A·∇log π, weighted by the combination's probability, is exactly what a
gradient step would do to the wish to go on. A baseline may make that noisier or less so; it may not change it.
"""

from itertools import product

import pytest
import torch

import reward
from reward import METHODS, TOKEN_METHODS, StepRollouts
from reward.methods.table import BIASES, baseline_bias
from tests.reward.method_cases import rollouts_of

STEPS = 3
CHANCES = {1: 0.5, 2: 0.25, 3: 0.25}


def drift(advantages, group, scores=(0.8, 0.8, 0.8), outcome=1.0, **more):
    """The expected gradient of one rollout's wish to go on; ``advantages``: rollouts → (B, K)."""
    lengths = list(product(CHANCES, repeat=group))
    rows = torch.tensor([length for combination in lengths for length in combination])
    mask = torch.arange(STEPS) < rows[:, None]
    rollouts = StepRollouts(
        torch.where(mask, torch.tensor(scores), 0.0),
        mask,
        mask.long(),
        torch.full((len(rows),), outcome),
        group,
        **more,
    )
    # ∂log π/∂logit: ½ for a step that went on, −½ for one that stopped, 0 where the third step had to.
    last = reward.shaping.last_steps(mask)
    slope = torch.where(last, -0.5, 0.5) * mask
    slope[:, STEPS - 1] = 0
    weights = torch.tensor([CHANCES[length] for length in rows.tolist()]).reshape(-1, group).prod(1)
    by_group = (advantages(rollouts) * slope).sum(1).reshape(-1, group).mean(1)
    return float((weights * by_group).sum())


def called(name, **keywords):
    method = METHODS[name]
    if hasattr(method, "initial_memory"):
        full = {"verified": 1e6, "right": 5e5, "approved": 5e5, "approved_right": 5e5}
        memory = {key: torch.tensor(value) for key, value in full.items()}
        return lambda rollouts: method(rollouts, memory, window=1e9, **keywords)[0]
    return lambda rollouts: method(rollouts, **keywords)


def returns_alone(rollouts):
    return reward.discounted_returns(rollouts.step_scores, rollouts.step_mask)


def test_every_method_says_what_its_baseline_is():
    said = {name: baseline_bias(method)[0] for name, method in (METHODS | TOKEN_METHODS).items()}
    assert set(said.values()) == set(BIASES)
    assert {name for name, bias in said.items() if bias == "affected"} == {"grpo_ps", "pure", "progrs", "prime"}


# Those that add up scores pay for steps, as their return does; `vine` takes scores for values, and a constant is none.
PAY_FOR_STEPS = {"gamma_sum", "mt_grpo"}
UNAFFECTED = [name for name, method in METHODS.items() if baseline_bias(method)[0] == "unaffected"]


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
@pytest.mark.parametrize("name", [name for name in UNAFFECTED if name not in (*PAY_FOR_STEPS, "vine")])
def test_a_constant_added_to_every_score_does_not_reward_writing_more_or_less(name, outcome, group):
    for score in (0.1, 0.5, 0.9):
        found = drift(called(name), group, (score,) * STEPS, outcome)
        assert found == pytest.approx(0.0, abs=2e-4), score  # rounding, over a std of 0 + 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_vine_with_scores_that_are_values_does_not_either(value):
    assert drift(called("vine"), 3, (value,) * STEPS, value) == pytest.approx(0.0, abs=1e-6)


OWN_SHARE = [name for name, method in METHODS.items() if baseline_bias(method)[0] == "own share"]
NEVER_SCALED = [name for name in OWN_SHARE if name not in ("verigate", "gtpo", "gigpo")]


@pytest.mark.parametrize("name", NEVER_SCALED)
def test_an_own_share_in_the_mean_vanishes_with_the_size_of_the_group(name):
    """The pull of a constant is of the order 1/G: with five rollouts less than half of that with two."""
    two, five = (abs(drift(called(name), group)) for group in (2, 5))
    assert five <= 0.5 * two + 1e-6


def test_gigpo_with_a_constant_outcome_does_not_care_about_length():
    keys = {g: torch.arange(STEPS).expand(3**g * g, STEPS) for g in (2, 3)}
    for group in (2, 3):
        assert drift(called("gigpo"), group, state_keys=keys[group]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(PAY_FOR_STEPS))
def test_those_that_add_up_scores_pay_for_steps_and_say_so(name):
    assert drift(called(name), 3) > 0.05
    assert any(word in METHODS[name].__doc__ for word in ("pays every further step", "every further call"))


@pytest.mark.parametrize("scores", [(0.8, 0.8, 0.8), (0.9, 0.1, 0.5), (0.0, 1.0, 0.3)])
@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_leave_one_out_returns_have_the_gradient_of_the_returns(scores, group, gamma):
    def centred(rollouts):
        return reward.leave_one_out_returns(rollouts.step_scores, rollouts.step_mask, group, gamma=gamma)

    def alive_only(rollouts):
        returns = reward.discounted_returns(rollouts.step_scores, rollouts.step_mask, gamma=gamma)
        others = reward.positional_advantages(returns, rollouts.step_mask, group)
        compared = (rollouts.step_mask.reshape(-1, group, STEPS).sum(1) > 1).repeat_interleave(group, 0)
        return torch.where(compared, others, returns * rollouts.step_mask)  # alone at k: no baseline

    def alone(rollouts):
        return reward.discounted_returns(rollouts.step_scores, rollouts.step_mask, gamma=gamma)

    wanted = drift(alone, group, scores)
    assert wanted != 0
    assert drift(centred, group, scores) == pytest.approx(wanted, abs=1e-6)
    assert drift(alive_only, group, scores) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", ["grpo_ps", "pure", "gtpo"])
def test_the_return_baseline_of_the_methods_that_offer_it(name):
    """`grpo_ps`, `gtpo`: the gradient of the sum of scores. `pure`: that of its rewards without any baseline."""
    keywords = {"gamma": 1.0} if name == "gtpo" else {"outcome_weight": 0.0}
    found = drift(called(name, baseline="return", **keywords), 3)
    alone = called("pure", baseline="none", outcome_weight=0.0) if name == "pure" else returns_alone
    wanted = drift(alone, 3)
    assert found == pytest.approx(wanted, abs=1e-5)


def test_centred_rewards_charge_for_every_further_step():
    """What the three affected methods do: steps that score above 0 pay, and the baseline takes that away or more."""
    falling = (0.9, 0.5, 0.5)
    assert drift(returns_alone, 3, falling) > 0.1
    assert drift(called("grpo_ps"), 3, falling) < -0.1
    assert drift(called("progrs", beta=1.0), 3, falling, outcome=0.0) < -0.1
    for baseline in ("token", "step"):  # q = .6 and −.6: a charge, and a bonus
        assert drift(called("pure", baseline=baseline), 3, (0.8,) * STEPS) < -0.1
        assert drift(called("pure", baseline=baseline), 3, (0.2,) * STEPS) > 0.1
    # The soft minimum of equal scores is the same for any number of them; its shares to come are not quite.
    assert abs(drift(called("pure", baseline="none"), 3)) < 0.02


def test_equal_scores_of_two_lengths_by_hand():
    """A = (.8, .8), B = (.8): nothing under `grpo_ps`; by returns A is ahead by .8 wherever it is compared."""
    rollouts = rollouts_of([([[0.8, 0.8], [0.8]], [[1, 1], [1]], [1.0, 1.0])])
    assert METHODS["grpo_ps"](rollouts).abs().max() < 1e-6
    for got in (
        METHODS["grpo_ps"](rollouts, baseline="return"),
        reward.leave_one_out_returns(rollouts.step_scores, rollouts.step_mask, 2),
    ):
        torch.testing.assert_close(got, torch.tensor([[0.8, 0.8], [-0.8, 0.0]]))
    returns = reward.discounted_returns(rollouts.step_scores, rollouts.step_mask)
    alive = reward.positional_advantages(returns, rollouts.step_mask, 2)
    torch.testing.assert_close(alive, torch.tensor([[0.8, 0.0], [-0.8, 0.0]]))


def test_primes_token_baseline_is_charged_too():
    def primed(score):
        def advantages(rollouts):
            tokens = StepRollouts(
                rollouts.step_scores, rollouts.step_mask, rollouts.step_lengths, rollouts.outcome_rewards, 3,
                token_scores=torch.where(rollouts.step_mask, score, 0.0),
            )  # fmt: skip
            keywords = {"batch_norm": False, "drop_last": False, "outcome_weight": 0.0}
            return TOKEN_METHODS["prime"](tokens, **keywords)

        return advantages

    # Equal token scores s: the return says s per token, the method leaves next to nothing of it.
    falling = torch.tensor([0.9, 0.5, 0.5])
    assert drift(primed(falling), 3) < -0.01
