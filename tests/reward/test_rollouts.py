"""StepRollouts refuses what breaks its contract, accepts anything in padding; unscored steps can be filled."""

import pytest
import torch

from reward import StepRollouts, filled_scores

NAN = float("nan")


def fields(**changes):
    """Two rollouts of one group: steps 2 and 1 of at most 2."""
    base = {
        "step_scores": torch.tensor([[0.9, 0.4], [0.5, NAN]]),
        "step_mask": torch.tensor([[True, True], [True, False]]),
        "step_lengths": torch.tensor([[3, 0], [4, -7]]),
        "outcome_rewards": torch.tensor([1.0, NAN]),
        "num_generations": 2,
    }
    return base | changes


def test_garbage_in_padding_and_zero_length_steps_are_accepted():
    assert StepRollouts(**fields()).num_generations == 2
    for garbage in (1e9, -1e9, float("inf")):
        StepRollouts(**fields(step_scores=torch.tensor([[0.9, 0.4], [0.5, garbage]])))


def test_states_are_told_or_asked_for_in_vain():
    keys = torch.tensor([[0, -1], [7, -99]])  # −99 stands in padding
    assert StepRollouts(**fields(state_keys=keys)).required_state_keys is keys
    with pytest.raises(ValueError, match=r"state_keys: got none, expected \(B, K\).*environment"):
        _ = StepRollouts(**fields()).required_state_keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_mask": torch.ones(2, 3, dtype=torch.bool)}, r"step_mask: got shape \(2, 3\), expected \(2, 2\)"),
        ({"step_lengths": torch.ones(1, 2, dtype=torch.int64)}, r"step_lengths: got shape \(1, 2\)"),
        ({"outcome_rewards": torch.ones(3)}, r"outcome_rewards: got shape \(3,\), expected \(2,\)"),
        ({"step_mask": torch.ones(2, 2, dtype=torch.int64)}, "step_mask: got dtype torch.int64, expected torch.bool"),
        ({"step_lengths": torch.ones(2, 2)}, "step_lengths: got dtype torch.float32, expected integers"),
        ({"step_lengths": torch.ones(2, 2, dtype=torch.bool)}, "step_lengths: got dtype torch.bool"),
        ({"step_scores": torch.ones(2, 2, dtype=torch.int64)}, "step_scores: got dtype torch.int64, expected float"),
        ({"outcome_rewards": torch.ones(2, dtype=torch.int64)}, "outcome_rewards: got dtype torch.int64"),
        ({"outcome_rewards": torch.ones(2, device="meta")}, "outcome_rewards: got device meta, expected cpu"),
        ({"num_generations": 3}, "num_generations: got 3 for 2 rollouts, expected a divisor"),
        ({"num_generations": 0}, "num_generations: got 0"),
        ({"num_generations": -2}, "num_generations: got -2"),
        ({"step_mask": torch.tensor([[True, True], [False, False]])}, "rollout 1 does not start with a real step"),
        ({"step_mask": torch.tensor([[False, True], [True, False]])}, "rollout 0 does not start with a real step"),
        ({"step_lengths": torch.tensor([[3, -1], [4, 0]])}, "step_lengths: got -1 at rollout 0, step 1, expected ≥ 0"),
        ({"step_scores": torch.tensor([[0.9, NAN], [0.5, 0.0]])}, r"1 of 3 real steps are NaN .*reward.filled_scores"),
        ({"step_scores": torch.tensor([[0.9, 3.0], [0.5, 0.0]])}, r"step_scores: got values in \[0.5, 3\]"),
        ({"step_scores": torch.tensor([[0.9, -0.1], [0.5, 0.0]])}, r"step_scores: got values in \[-0.1, 0.9\]"),
        ({"outcome_rewards": torch.tensor([1.0, float("inf")])}, "outcome_rewards: got infinity at rollout 1"),
        ({"scored": torch.ones(2, 3, dtype=torch.bool)}, r"scored: got shape \(2, 3\), expected \(2, 2\)"),
        ({"scored": torch.ones(2, 2)}, "scored: got dtype torch.float32, expected torch.bool"),
        ({"scored": torch.ones(2, 2, dtype=torch.bool, device="meta")}, "scored: got device meta, expected cpu"),
        ({"verdicts": torch.ones(2, 2)}, r"verdicts: got shape \(2, 2\), expected \(2,\)"),
        ({"verdicts": torch.ones(2, dtype=torch.bool)}, "verdicts: got dtype torch.bool, expected float"),
        ({"verdicts": torch.ones(2, device="meta")}, "verdicts: got device meta, expected cpu"),
        (
            {"verdicts": torch.tensor([NAN, 0.7])},
            "verdicts: got 0.7 at rollout 1, expected 1 = correct.*outcome_rewards",
        ),
        ({"verdicts": torch.tensor([float("inf"), 0.0])}, "verdicts: got inf at rollout 0"),
        ({"state_keys": torch.zeros(2, 3).long()}, r"state_keys: got shape \(2, 3\), expected \(2, 2\)"),
        ({"state_keys": torch.zeros(2, 2)}, "state_keys: got dtype torch.float32, expected integers"),
        ({"state_keys": torch.ones(2, 2, dtype=torch.bool)}, "state_keys: got dtype torch.bool, expected integers"),
        ({"state_keys": torch.zeros(2, 2, device="meta").long()}, "state_keys: got device meta, expected cpu"),
        ({"state_keys": torch.tensor([[0, 1], [-2, 0]])}, "state_keys: got -2 at rollout 1, step 0, expected a state"),
    ],
)
def test_refusals_say_what_came_and_what_was_expected(changes, message):
    # The shape annotations would refuse some of these first under pytest; users run without them.
    with pytest.raises(ValueError, match=message):
        StepRollouts.__post_init__(_unchecked(**fields(**changes)))


def test_the_verdict_and_not_the_reward_says_what_is_correct():
    ones = torch.ones(4, 1)
    batch = (ones, ones.bool(), ones.long(), torch.tensor([2.0, 1.0, -0.5, 1.0]), 2)
    judged = StepRollouts(*batch, verdicts=torch.tensor([1.0, 0.0, 1.0, NAN]))
    assert judged.correct.tolist() == [True, False, True, False]
    assert judged.incorrect.tolist() == [False, True, False, False]
    assert judged.scorable.tolist() == [True, True, True, False]
    derived = StepRollouts(*batch)
    assert derived.correct.tolist() == [True, True, False, True] and derived.scorable.all()


def test_a_hole_in_the_mask_is_named():
    mask = torch.tensor([[True, False, True]])
    ones = torch.ones(1, 3)
    with pytest.raises(ValueError, match="rollout 0 has a real step at 2 after a padded one"):
        StepRollouts(ones, mask, ones.long(), torch.ones(1), 1)


@pytest.mark.parametrize("shape", [(2, 0), (0, 2)])
def test_empty_batches_are_refused(shape):
    empty = torch.zeros(shape)
    with pytest.raises(ValueError, match="step_scores: got shape"):
        StepRollouts(empty, empty.bool(), empty.long(), torch.zeros(shape[0]), 1)


def _unchecked(**values) -> StepRollouts:
    rollouts = object.__new__(StepRollouts)
    for name, value in values.items():
        object.__setattr__(rollouts, name, value)
    return rollouts


def test_filled_scores_by_hand():
    scores = torch.tensor(
        [
            [0.8, NAN, NAN, 0.2],  # carried on, then a new score
            [
                NAN,
                0.6,
                NAN,
                9.0,
            ],  # before the first score: the group's mean (0.8 + 0.2 + 0.6) / 3; then carried; padding
            [NAN, NAN, NAN, NAN],  # a group without any score: 0.5
            [NAN, NAN, 0.3, 0.3],
        ]
    )
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    filled, unscored = filled_scores(scores, mask, 2)
    mean = 1.6 / 3
    expected = [[0.8, 0.8, 0.8, 0.2], [mean, 0.6, 0.6, 0.0], [0.5, 0.5, 0.5, 0.5], [0.5, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(filled, torch.tensor(expected))
    assert unscored.tolist() == [
        [False, True, True, False],
        [True, False, True, False],
        [True] * 4,
        [True, False, False, False],
    ]
    StepRollouts(filled, mask, mask.long(), torch.ones(4), 2)


def test_filled_scores_leave_scored_rollouts_alone():
    scores, mask = torch.rand(6, 5), torch.ones(6, 5, dtype=torch.bool)
    filled, unscored = filled_scores(scores, mask, 3)
    assert torch.equal(filled, scores) and not unscored.any()
