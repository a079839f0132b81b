"""The toy world's small questions: together they are the exact checker; the judge errs as often as it is told."""

import random

import pytest

from rlhf_prm.judges.decomposed import ASPECTS, aspect_messages, read_aspect
from rlhf_prm.toyworld.aspects import TOY_MARKS, AspectJudge, aspect_verdicts
from rlhf_prm.toyworld.checker import step_verdicts
from rlhf_prm.toyworld.problems import FILLERS, OPERANDS, OPERATIONS, answer_line, draw_problem, step_line
from rlhf_prm.toyworld.tokenizer import toy_tokenizer


def some_solution(rng):
    """The gold steps with something done to some of them."""
    problem = draw_problem(rng, (3, 5))
    steps = list(problem.gold_steps)
    for _ in range(rng.randint(0, 2)):
        place = rng.randrange(len(steps))
        line = step_line(rng.randrange(10), rng.choice(OPERATIONS), rng.choice(OPERANDS), rng.randrange(10))
        steps[place : place + rng.randint(0, 1)] = [rng.choice([line, rng.choice(FILLERS), answer_line(3), "what?"])]
    return problem, steps


def test_the_respects_together_are_the_checkers_verdict():
    rng = random.Random(0)
    for _ in range(400):
        problem, steps = some_solution(rng)
        told = aspect_verdicts(problem, steps)
        assert [all(verdict.values()) for verdict in told] == step_verdicts(problem, steps)
        assert all(list(verdict) == list(ASPECTS) for verdict in told)


def test_each_kind_of_error_by_hand():
    problem = "Left to right, mod 10: 7 Add 3 Times 4"
    steps = ["7 Add 3 = 1", "0 Times 4 = 0", "0 Minus 2 = 8", "Answer: \\boxed{8}"]
    wrong = [[name for name, right in verdict.items() if not right] for verdict in aspect_verdicts(problem, steps)]
    assert wrong == [["calculation"], ["inference"], ["givens"], ["givens"]]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_the_judge_errs_as_often_as_it_is_told(aspect):
    rng, flips = random.Random(1), {"calculation": 0.0, "inference": 0.1, "givens": 0.3}
    judge, errors, asked = AspectJudge(flips, seed=3), 0, 0
    for _ in range(400):
        problem, steps = some_solution(rng)
        operations = [k for k, step in enumerate(steps) if " = " in step]
        chats = [aspect_messages(problem.prompt, steps[: k + 1], aspect) for k in operations]
        right = aspect_verdicts(problem, steps)
        for k, (answer,) in zip(
            operations, judge.generate(chats, 1, seed=[rng.getrandbits(31) for _ in chats]), strict=True
        ):
            errors += read_aspect(answer) != right[k][aspect]
            asked += 1
    assert errors / asked == pytest.approx(flips[aspect], abs=0.05)


def test_a_toy_student_can_tell_the_questions_apart():
    tokenizer = toy_tokenizer()
    ids = [tokenizer(mark + "Left to right, mod 10: 7").input_ids for mark in TOY_MARKS.values()]
    assert len({tuple(one) for one in ids}) == 3 and len({len(one) for one in ids}) == 1
