"""What must hold of the methods whatever the numbers: reductions, invariances, degenerate groups."""

from dataclasses import replace
from itertools import product

import pytest
import torch

import reward
from reward import METHODS
from tests.reward.method_cases import GARBAGE, NAN, NEED_OUTCOME, STATELESS, VARIANTS, random_groups, rollouts_of

LEAVE_ONE_OUT = ("pure", "pure_strict")
OF_REWARDS = ("potential", "vine", "capo", "gigpo", "gtpo")  # their outcome is what is paid, not what is correct


def close(got, wanted, atol=1e-5):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=atol)


def one_step_groups(score, missing=0.2):
    """Rollouts of one step, all of the same score and length, outcomes as they come."""
    return [([[score]] * 6, [[4]] * 6, outcomes) for _, _, outcomes in random_groups(1, missing=missing)]


def outcome_term(rollouts, name, weight=1.0):
    term = reward.leave_one_out_outcomes if name in LEAVE_ONE_OUT else reward.outcome_advantages
    return weight * reward.over_steps(term(rollouts.outcome_rewards, rollouts.num_generations), rollouts.step_mask)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("grpo_ps", {}),
        ("gamma_sum", {}),
        ("pure", {}),
        ("pure", {"baseline": "step"}),
        ("pure_strict", {}),
        ("clip_delta", {}),
        ("progress", {}),
        ("immediate", {"process_weight": 0.0}),
        ("prof", {"keep": 1.0}),
        ("progrs", {"beta": 0.0}),
        ("papo", {"beta": 0.0}),
        ("fapo", {}),
        ("srar", {}),
    ],
)
def test_one_step_without_process_signal_is_the_outcome_term(name, keywords):
    rollouts = rollouts_of(one_step_groups(0.7))
    close(METHODS[name](rollouts, **keywords), outcome_term(rollouts, name))


def test_one_step_of_potential_and_vppo_is_the_unscaled_outcome():
    rollouts = rollouts_of(one_step_groups(0.7))
    outcomes, scorable = rollouts.outcome_rewards, rollouts.scorable
    centred = torch.where(scorable, outcomes - reward.group_mean_baseline(outcomes, scorable, 6), 0)[:, None]
    close(METHODS["potential"](rollouts), centred)
    close(METHODS["vppo"](rollouts, alpha=0.0), centred)


def test_verigate_is_the_outcome_in_mixed_groups():
    scores, lengths, _ = random_groups(3)[0]
    rollouts = rollouts_of([(scores, lengths, [1.0, 0.0, NAN, 1.0, 0.0, 0.0])])
    assert torch.equal(METHODS["verigate"](rollouts), METHODS["outcome"](rollouts))


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("immediate", "process_weight"),
        ("srar", "process_weight"),
        ("progrs", "beta"),
        ("papo", "beta"),
        ("fapo", "penalty"),
    ],
)
def test_process_weight_zero_is_the_outcome_for_any_rollouts(name, keyword):
    rollouts = rollouts_of(random_groups(5))
    close(METHODS[name](rollouts, **{keyword: 0.0}), METHODS["outcome"](rollouts))


@pytest.mark.parametrize("name", ["grpo_ps", "gamma_sum", "pure", "pure_strict", "clip_delta", "progress"])
def test_the_outcome_term_enters_with_its_weight(name):
    rollouts = rollouts_of(random_groups(4))
    with_it, without = (METHODS[name](rollouts, outcome_weight=weight) for weight in (2.5, 0.0))
    close(with_it - without, outcome_term(rollouts, name, 2.5))


def test_a_cold_pure_is_the_minimum():
    rollouts = rollouts_of(random_groups(6))
    mask = rollouts.step_mask
    q = reward.centered_scores(rollouts.step_scores, mask)
    cold = reward.soft_min_shaping(q, mask, temperature=1e-6).sum(1)
    close(cold, reward.min_returns(q, mask)[:, 0])
    close(cold, torch.where(mask, q, 2.0).min(dim=1).values)
    # On the first step, before baselines, pure is then pure_strict.
    soft = METHODS["pure"](rollouts, temperature=1e-6, baseline="none", outcome_weight=0.0)[:, 0]
    close(soft, reward.min_returns(q, mask)[:, 0])


def test_a_hot_pure_is_the_mean():
    rollouts = rollouts_of(random_groups(6))
    q = reward.centered_scores(rollouts.step_scores, rollouts.step_mask)
    hot = reward.soft_min_shaping(q, rollouts.step_mask, temperature=1e6).sum(1)
    close(hot, reward.step_means(q, rollouts.step_mask))


def test_gamma_zero_is_the_immediate_score():
    rollouts = rollouts_of(random_groups(7))
    mask = rollouts.step_mask
    p = reward.raw_scores(rollouts.step_scores, mask)
    first = reward.over_steps(reward.group_mean_baseline(p[:, 0], mask[:, 0], 6), mask)
    close(METHODS["gamma_sum"](rollouts, gamma=0.0) + first, METHODS["immediate"](rollouts, process_weight=1.0))


@pytest.mark.parametrize("initial", [0.0, 0.4, torch.rand(18)])
def test_potentials_telescope(initial):
    rollouts = rollouts_of(random_groups(8))
    mask = rollouts.step_mask
    rewards = reward.potential_shaping(rollouts.step_scores, mask, initial=initial)
    close(rewards.sum(1), -torch.as_tensor(initial).expand(18))
    # So the advantage of step k is the outcome minus the potential before it.
    if not isinstance(initial, torch.Tensor):
        p = reward.raw_scores(rollouts.step_scores, mask)
        before = torch.cat([torch.full((18, 1), initial), p[:, :-1]], dim=1)
        judged = mask & rollouts.scorable[:, None]
        wanted = torch.where(judged, rollouts.outcome_rewards[:, None] - before, 0)
        close(METHODS["potential"](rollouts, initial=initial), wanted)


def test_clipped_returns_are_the_clipped_scores():
    rollouts = rollouts_of(random_groups(9))
    mask = rollouts.step_mask
    clipped = reward.clip_shaping(rollouts.step_scores, mask, threshold=0.6)
    close(reward.discounted_returns(reward.delta_shaping(clipped, mask), mask), clipped)
    assert (clipped <= 0).all() and (clipped >= -0.6).all() and clipped.any()


def test_progress_telescopes():
    rollouts = rollouts_of(random_groups(9))
    mask = rollouts.step_mask
    rewards = reward.progress_shaping(rollouts.step_scores, mask, alpha=2.0, initial=0.3)
    last = rollouts.step_scores.gather(1, rollouts.num_steps[:, None] - 1)[:, 0]
    close(rewards.sum(1), 2 * (last - 0.3))


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_adding_a_constant_to_a_groups_outcomes_changes_nothing(name, keywords):
    # A shift that leaves right above ½ and wrong below it.
    groups = random_groups(10)
    shifted = [(scores, lengths, [o + 0.25 for o in outcomes]) for scores, lengths, outcomes in groups]
    before, after = (METHODS[name](rollouts_of(g), **keywords) for g in (groups, shifted))
    if name == "vine":  # the outcome enters the last step, and what it is compared with the first
        mask, last = rollouts_of(groups).step_mask, reward.shaping.last_steps(rollouts_of(groups).step_mask)
        moved = 0.25 * (last.float() - (torch.arange(mask.shape[1]) == 0).float())
        return close(after - before, torch.where(mask & rollouts_of(groups).scorable[:, None], moved, 0))
    if name in ("gigpo", "gtpo") and keywords.get("gamma", 0.95 if name == "gtpo" else 1.0) < 1:
        return None  # the later an outcome comes, the less of the shift arrives
    if name != "potential":
        return close(after, before)
    # Its potentials are on the outcomes' own scale: only the first step's is taken from the outcomes.
    rollouts = rollouts_of(groups)
    gamma, left = keywords.get("gamma", 1.0), rollouts.num_steps[:, None] - 1 - torch.arange(before.shape[1])
    followed = (torch.arange(before.shape[1]) == 0) * ("initial" not in keywords)
    moved = 0.25 * (gamma ** left.clamp(min=0) - followed.float())
    close(after - before, torch.where(rollouts.step_mask & rollouts.scorable[:, None], moved, 0))


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_permuting_a_group_permutes_the_result(name, keywords):
    groups = random_groups(11)
    order = [3, 0, 5, 1, 4, 2]
    permuted = [tuple([column[i] for i in order] for column in group) for group in groups]
    before, after = (METHODS[name](rollouts_of(g, extra=g is groups), **keywords) for g in (groups, permuted))
    rows = torch.tensor([6 * g + i for g in range(3) for i in order])
    close(after, before[rows, :-1])


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_groups_do_not_see_each_other(name, keywords):
    groups = random_groups(12)
    together = METHODS[name](rollouts_of(groups), **keywords)
    for i, group in enumerate(groups):
        alone = METHODS[name](rollouts_of([group]), **keywords)
        close(together[6 * i : 6 * i + 6, : alone.shape[1]], alone)


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_padding_never_leaks(name, keywords):
    groups = random_groups(13)
    clean = METHODS[name](rollouts_of(groups, 0.0, 0), **keywords)
    for garbage in GARBAGE:
        assert torch.equal(METHODS[name](rollouts_of(groups, garbage, 12345), **keywords), clean)


@pytest.mark.parametrize("name", STATELESS)
def test_an_unscorable_rollout_takes_no_part_in_the_outcome(name):
    groups = random_groups(14, missing=0.0)
    for _, _, outcomes in groups:
        outcomes[2] = NAN
    rollouts = rollouts_of(groups)
    result = METHODS[name](rollouts)
    unscorable = ~rollouts.scorable
    if name in NEED_OUTCOME or name == "outcome":
        assert not result[unscorable].any()
    else:
        assert result[unscorable].abs().sum() > 0  # the process term alone
    if name in ("outcome", "vppo", "papo", "progrs", "verigate", "potential", "vine", "capo", "fapo"):
        rest = [tuple(column[:2] + column[3:] for column in group) for group in groups]
        close(result[~unscorable][:, : METHODS[name](rollouts_of(rest)).shape[1]], METHODS[name](rollouts_of(rest)))


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_no_signal_gives_nothing(name, keywords):
    # One step each, all alike. `immediate` pays the raw score; `pure` without a baseline its return; `potential`
    # with a given start the outcome above it.
    for outcome, score, group in product([0.0, 1.0, NAN], [0.0, 0.7, 1.0], [2, 5]):
        groups = [([[score]] * group, [[3]] * group, [outcome] * group)] * 2
        result = METHODS[name](rollouts_of(groups), **keywords)
        unbaselined = {
            "immediate": keywords.get("process_weight", 0.5) * score,
            "pure": (2 * score - 1) * (keywords.get("baseline") == "none"),
            "potential": outcome - keywords["initial"] if "initial" in keywords and outcome == outcome else 0.0,
        }
        wanted = torch.full_like(result, unbaselined.get(name, 0.0))
        assert torch.allclose(result, wanted, rtol=1e-4, atol=1e-5), (outcome, score, group, result, wanted)


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_a_group_of_one_is_finite(name, keywords):
    for outcome in (0.0, 1.0, NAN):
        result = METHODS[name](rollouts_of([([[0.2, 0.9, 0.4]], [[1, 0, 5]], [outcome])]), **keywords)
        assert result.isfinite().all(), outcome
        if name in ("outcome", "papo", "prof"):
            assert not result.any(), outcome


def test_a_uniformly_good_rollout_earns_by_its_steps_under_the_sum_only():
    """The known failure of `grpo_ps`, and its absence from `clip_delta`."""
    scores, outcomes = [[0.9] * 6, [0.9, 0.9], [0.1, 0.1, 0.1]], [1.0, 1.0, 0.0]
    rollouts = rollouts_of([(scores, [[2] * len(row) for row in scores], outcomes)])
    summed = METHODS["grpo_ps"](rollouts)[:, 0]
    assert summed[0] > 2 * summed[1] > 0
    for name, keywords in (("grpo_ps", {"reduce": "mean"}), ("clip_delta", {}), ("progress", {}), ("pure_strict", {})):
        bounded = METHODS[name](rollouts, **keywords)[:, 0]
        assert bounded[0] == pytest.approx(float(bounded[1]), abs=1e-5)


def test_cutting_a_rollout_finer_leaves_the_token_baseline_alone():
    """`pure` charges by the token; by the step, a rollout that avoids separators is charged less."""
    coarse = ([[0.8], [0.8, 0.3]], [[6], [3, 3]], [1.0, 1.0])
    fine = ([[0.8, 0.8, 0.8], [0.8, 0.3]], [[2, 2, 2], [3, 3]], [1.0, 1.0])
    token = [METHODS["pure"](rollouts_of([group]))[0, 0] for group in (coarse, fine)]
    step = [METHODS["pure"](rollouts_of([group]), baseline="step")[0, 0] for group in (coarse, fine)]
    assert token[0] == pytest.approx(float(token[1]), abs=1e-5)
    assert abs(step[0] - step[1]) > 0.1


@pytest.mark.parametrize(("name", "keywords"), [case for case in VARIANTS if case[0] not in OF_REWARDS])
@pytest.mark.parametrize("paid_besides", [1.0, -0.75])
def test_what_is_paid_besides_does_not_change_what_is_correct(name, keywords, paid_besides):
    """A format reward for everybody, or a length penalty: with verdicts every method gives what it gave without."""
    rollouts = rollouts_of([(s, n, [0.0 if o != o else o for o in outcomes]) for s, n, outcomes in random_groups(5)])
    plain = METHODS[name](rollouts, **keywords)
    verdicts = rollouts.outcome_rewards
    paid = replace(rollouts, outcome_rewards=verdicts + paid_besides, verdicts=verdicts)
    close(METHODS[name](paid, **keywords), plain, atol=1e-4)
    close(METHODS[name](replace(rollouts, verdicts=verdicts), **keywords), plain, atol=0)


@pytest.mark.parametrize("name", [name for name in NEED_OUTCOME if name not in OF_REWARDS])
def test_a_reward_without_a_verdict_is_no_verdict(name):
    """In a group without verdicts nothing is correct or incorrect, though something is paid for."""
    scores, lengths, _ = random_groups(6)[0]
    rollouts = replace(rollouts_of([(scores, lengths, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0])]), verdicts=torch.full((6,), NAN))
    left = (
        METHODS["outcome"](rollouts) if name in ("progrs", "papo", "fapo") else torch.zeros(rollouts.step_scores.shape)
    )
    close(METHODS[name](rollouts), left)


def test_potential_and_vine_of_what_is_paid_without_a_verdict():
    """They ask what is paid, not what is correct; and a verdict on which nothing is paid gives nothing."""
    groups = [([[0.5, 0.5], [0.5]], [[1, 1], [1]], [1.0, NAN])]
    rollouts = replace(rollouts_of(groups), verdicts=torch.tensor([NAN, 1.0]))
    close(METHODS["potential"](rollouts), torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    close(METHODS["vine"](rollouts), torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
