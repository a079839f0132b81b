"""capo, fapo, srar and papo on what a judge says: votes, steps it says nothing of, filler."""

import math
from dataclasses import replace

import pytest
import torch
from method_cases import random_groups, rollouts_of

from reward import METHODS, StepRollouts

NAN = float("nan")


def close(got, wanted, atol=1e-5):
    torch.testing.assert_close(got, torch.as_tensor(wanted, dtype=torch.float32), rtol=1e-4, atol=atol)


def judged(scores, outcomes, lengths=None, group=None):
    """Rollouts whose NaN scores are steps that the judge has said nothing of, filled as the trainer fills them."""
    from reward import filled_scores

    width = max(map(len, scores))
    table = torch.tensor([row + [0.0] * (width - len(row)) for row in scores])
    mask = torch.tensor([[k < len(row) for k in range(width)] for row in scores])
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in lengths or [[1] * len(row) for row in scores]])
    table, filled = filled_scores(table, mask, group or len(scores))
    return StepRollouts(table, mask, tokens, torch.tensor(outcomes), group or len(scores), scored=~filled)


def test_capo_by_hand_on_the_published_example():
    """W = 2, w = 1: a right answer with a wrong second step pays 2, 1; a wrong one 0, −1. Mean ½, variance 5/3."""
    got = METHODS["capo"](judged([[1.0, 0.0], [1.0, 0.0]], [1.0, 0.0]))
    scale = math.sqrt(5 / 3) + 1e-4
    close(got, [[1.5 / scale, 0.5 / scale], [-0.5 / scale, -1.5 / scale]])


def test_capo_intersection_and_majority():
    """One vote of four against a step: neither. Three: the majority. All: both."""
    for share, majority, intersection in ((0.75, 0, 0), (0.25, 1, 0), (0.0, 1, 1)):
        rollouts = judged([[1.0, share], [1.0, 1.0]], [1.0, 1.0])
        for threshold, wrong in ((0.5, majority), (0.0, intersection)):
            got = METHODS["capo"](rollouts, threshold=threshold)
            assert (got[0, 1] < got[0, 0]) == bool(wrong), (share, threshold)


def test_steps_behind_the_first_error_are_not_wrong():
    """A judge that stops at the first error: its 0 is carried on to the steps behind it, and is no verdict on them."""
    rollouts = judged([[1.0, 0.0, NAN, NAN], [1.0, 1.0, 1.0, 1.0]], [1.0, 1.0])
    assert rollouts.step_scores[0].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert rollouts.judged_wrong(0.5)[0].tolist() == [False, True, False, False]
    got = METHODS["capo"](rollouts)
    assert got[0, 2] == got[0, 3] == got[0, 0] > 0 > got[0, 1]
    without = replace(rollouts, scored=None)
    assert METHODS["capo"](without)[0, 2] < 0


def test_capo_charges_tokens_so_cutting_finer_changes_nothing():
    coarse = judged([[1.0, 0.0], [1.0]], [1.0, 0.0], lengths=[[6, 3], [4]])
    fine = judged([[1.0, 1.0, 1.0, 0.0], [1.0]], [1.0, 0.0], lengths=[[2, 2, 2, 3], [4]])
    (one, other) = (METHODS["capo"](rollouts) for rollouts in (coarse, fine))
    close(other[0, [0, 3]], one[0, :2].tolist())


def test_capo_does_not_see_filler():
    """Its known failure: a line that says nothing, and that no judge calls wrong, is paid as a step that helps is."""
    got = METHODS["capo"](judged([[1.0, 1.0, 1.0], [1.0, 0.0]], [1.0, 1.0]))
    assert got[0, 0] == got[0, 1] == got[0, 2] > 0


def test_fapo_helps_flawed_right_answers_until_fully_right_ones_prevail():
    def of_the_flawed(right, flawed, wrong):
        scores = [[1.0, 1.0]] * right + [[1.0, 0.0]] * flawed + [[0.0, NAN]] * wrong
        return float(METHODS["fapo"](judged(scores, [1.0] * (right + flawed) + [0.0] * wrong))[right, 0])

    assert of_the_flawed(0, 2, 6) > 0 and of_the_flawed(1, 2, 5) > 0
    assert of_the_flawed(3, 2, 3) == pytest.approx(0.0, abs=1e-6)  # as many fully right as wrong
    assert of_the_flawed(5, 2, 1) < 0 and of_the_flawed(6, 2, 0) < 0


def test_fapo_is_blind_to_the_number_of_steps():
    """Filler neither pays nor costs: the rollout takes one value, and it asks only whether a step is wrong."""
    plain = METHODS["fapo"](judged([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [1.0, 1.0, 0.0]))
    padded = METHODS["fapo"](judged([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0], [1.0, 1.0]], [1.0, 1.0, 0.0]))
    close(padded[:, 0], plain[:, 0].tolist())
    assert padded[0].unique().numel() == 1


def test_an_unread_right_answer_is_not_flawed():
    rollouts = judged([[NAN, NAN], [1.0, 1.0], [1.0, 0.0]], [1.0, 1.0, 0.0])
    got = METHODS["fapo"](rollouts)
    close(got[0], METHODS["outcome"](rollouts)[0].tolist())


def test_srar_compares_what_is_scored_at_the_same_place():
    """Deltas .8 and 0 at the first step: ±.7071. One alone at the second: 0. What is not scored takes no part."""
    p, q = 1.8 / 2.8, 1.0 / 2.8  # d = .8 and 0 as (d + 1) / 2.8
    rollouts = judged([[p, NAN], [q, p], [NAN, NAN]], [1.0, 1.0, 1.0])
    root = math.sqrt(0.5)
    close(METHODS["srar"](rollouts), [[root, 0.0], [-root, 0.0], [0.0, 0.0]])


def test_srar_is_the_same_for_any_scale_of_the_deltas():
    rollouts = rollouts_of(random_groups(3))
    shrunk = replace(rollouts, step_scores=0.25 + rollouts.step_scores / 2)
    close(METHODS["srar"](shrunk), METHODS["srar"](rollouts).tolist(), atol=1e-3)


def test_srar_pays_nothing_for_filler_at_the_end():
    """The rubric names no such step, so it is unscored: the outcome alone, and nobody else's advantage moves."""
    p, q = 0.7, 0.4
    plain = judged([[p, q], [q, q]], [1.0, 0.0])
    padded = judged([[p, q, NAN, NAN], [q, q]], [1.0, 0.0])
    before, after = METHODS["srar"](plain), METHODS["srar"](padded)
    close(after[:, :2], before.tolist())
    close(after[0, 2:], METHODS["outcome"](padded)[0, 2:].tolist())


def test_papo_takes_a_judges_mark_for_the_whole_process():
    """Marks 1, ½ for two right answers: ±.7071 of β; an answer without a mark takes no part; a wrong one neither."""
    rollouts = judged([[1.0, 1.0], [0.5, 0.5], [NAN, NAN], [1.0, 1.0]], [1.0, 1.0, 1.0, 0.0])
    got = METHODS["papo"](rollouts, beta=1.0) - METHODS["outcome"](rollouts)
    gap = 0.25 / (math.sqrt(0.125) + 1e-4)
    close(got[:, 0], [gap, -gap, 0.0, 0.0])
