"""Word problems: read back as they were drawn, right by hand, and never in the same wording on both sides."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from rlhf_prm.wordproblems.problems import (
    CALCULATIONS,
    LARGEST,
    Calculation,
    WordProblem,
    draw_problem,
    draw_splits,
    is_held_out,
    wording,
)
from rlhf_prm.wordproblems.sentences import MOVES, STARTS

BUTTONS = (
    "Nora bought 6 tins of 8 buttons each. 5 visitors take 3 buttons each. In the end Nora divides the buttons evenly "
    "into 11 piles. How many buttons make one share?"
)


def test_a_problem_by_hand():
    """6·8 = 48, 5·3 = 15, 48 − 15 = 33, 33 / 11 = 3; the third takes the first two results, the fourth the third."""
    problem = WordProblem.parse(BUTTONS)
    assert [str(one) for one in problem.plan] == ["6*8=48", "5*3=15", "48-15=33", "33/11=3"]
    assert problem.uses == ((None, None), (None, None), (0, 1), (2, None))
    assert problem.solution == "3"


def test_the_wording_has_no_names_things_or_numbers():
    assert wording("Tara has 12 eggs. Umar has twice as many eggs as Tara has then. How many eggs is that?") == (
        "Name has # things. Name has # as many things as Name has then. How many things is that?"
    )


def test_what_is_drawn_is_read_back():
    problems = [problem for split in draw_splits(3, {"eval": 300, "train": 700}).values() for problem in split]
    for problem in problems:
        read = WordProblem.parse(problem.text)
        assert read == problem and read.gold_steps == ()
        assert CALCULATIONS[0] <= len(problem.plan) <= CALCULATIONS[1]
        assert all(0 < one.result <= LARGEST for one in problem.plan)
        assert len(problem.gold_steps) == len(problem.plan) + 1
        assert len({one.key for one in problem.plan}) == len(problem.plan)
    told = {event for problem in problems for event in problem.text.split(". ")}
    assert len(told) > 1500  # varied: hardly a sentence comes twice


def test_every_event_happens():
    seen = {wording(sentence) for seed in range(600) for sentence in _sentences(draw_problem(random.Random(seed)).text)}
    for event in (*STARTS.values(), *MOVES.values()):
        for sentence in event.told:
            filled = sentence.format(w="Nora", o="Igor", things="eggs", boxes="tins", a=3, b=4, times="twice")
            assert wording(filled) in seen, sentence


def _sentences(text):
    return [part if part[-1] in ".?" else f"{part}." for part in text.split(". ")]


def test_train_and_held_out_never_share_a_wording():
    first, second = (draw_splits(seed, {"eval": 400, "sft": 800, "train": 800}) for seed in (0, 1))
    held_out = {problem.wording for split in (first, second) for problem in split["eval"]}
    trained = {p.wording for split in (first, second) for name in ("sft", "train") for p in split[name]}
    assert len(held_out) > 300 and len(trained) > 1000 and not held_out & trained
    assert all(is_held_out(problem) for problem in first["eval"])


def test_lists_are_disjoint_seeded_and_do_not_depend_on_later_ones():
    small, large = draw_splits(5, {"eval": 20, "sft": 200}), draw_splits(5, {"eval": 20, "sft": 200, "train": 500})
    assert small["sft"] == large["sft"] and small["eval"] == large["eval"]
    texts = [problem.text for split in large.values() for problem in split]
    assert len(set(texts)) == len(texts) == 720
    assert draw_splits(6, {"eval": 20})["eval"] != small["eval"]


@given(st.integers(0, 10**9))
@settings(deadline=None, max_examples=60)
def test_gold_steps_state_the_plan(seed):
    problem = draw_problem(random.Random(seed))
    for one, step in zip(problem.plan, problem.gold_steps, strict=False):
        assert str(one) in step
    assert problem.gold_steps[-1] == f"The answer is \\boxed{{{problem.solution}}}."


@pytest.mark.parametrize(
    "text",
    ["", "How many?", "Left to right, mod 10: 7 Add 3", "Nora flies 6 kites. How many kites does Nora have now?"],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="expected a word problem"):
        WordProblem.parse(text)


def test_division_with_a_rest_has_no_result():
    assert Calculation(7, "/", 2).result is None and Calculation(8, "/", 2).result == 4
    assert Calculation(3, "*", 4).key == Calculation(4, "*", 3).key != Calculation(4, "-", 3).key
