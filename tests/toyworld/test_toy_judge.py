import random

import pytest

from rlhf_prm.annotate.judge import judge
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.judges.forms import FORMS, parse_analyses
from rlhf_prm.statistics import first_error
from rlhf_prm.toyworld.checker import step_facts, step_labels, step_verdicts
from rlhf_prm.toyworld.demonstrator import Demonstrator
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.labels import judged_labels
from rlhf_prm.toyworld.problems import ChainProblem, draw_splits

PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))  # 2, 6, 8


def solutions(count, filler=False):
    rng, demonstrator = random.Random(0), Demonstrator(0, filler)
    problems = draw_splits(0, (3, 5), {"any": count})["any"]
    return problems, [demonstrator.solution(problem, rng) for problem in problems]


def test_an_infallible_judge_finds_the_first_error_of_every_solution():
    problems, steps = solutions(300, filler=True)
    labels = judge([p.prompt for p in problems], steps, FallibleJudge(0.0, seed=0))
    gold = [first_error(step_labels(p, s)) for p, s in zip(problems, steps, strict=True)]
    assert [label.first_error for label in labels] == gold
    assert len(set(gold)) > 4


def test_the_first_error_is_missed_and_a_later_one_is_judged_by_itself():
    """A judge that is always mistaken takes the false first step for true, and the true second one for false."""
    steps = ["7 Add 5 = 3", "3 Minus 6 = 7", "7 Times 3 = 1", "Answer: \\boxed{1}"]
    assert step_verdicts(PROBLEM, steps) == [False, True, True, True]
    (label,) = judge([PROBLEM.prompt], [steps], FallibleJudge(1.0, seed=0))
    assert label.labels[0] is True


def test_share_of_wrong_verdicts_and_how_systematic_they_are():
    problems, _ = solutions(4000)
    lines = [problem.gold_steps[0] for problem in problems]
    fallible = FallibleJudge(0.2, seed=3)
    chats = [FORMS["paper"].messages(p.prompt, [line]) for p, line in zip(problems, lines, strict=True)]
    first, second = ([parse_analyses(a, 1) == 0 for (a,) in fallible.generate(chats, seed=s)] for s in (0, 1))
    assert sum(first) / 4000 == pytest.approx(0.19, abs=0.05)  # 0.1 + 0.1 - 0.1 * 0.1, few facts decide one half
    always = {line for line in set(lines) if all(f for f, other in zip(first, lines, strict=True) if other == line)}
    on_the_rest = [f for f, line in zip(first, lines, strict=True) if line not in always]
    assert 0.04 < len(always) / len(set(lines)) < 0.18
    assert sum(on_the_rest) / len(on_the_rest) == pytest.approx(0.1, abs=0.02)
    assert [f for f, line in zip(second, lines, strict=True) if line in always].count(False) == 0


def test_votes_remove_the_random_half_of_the_errors_only():
    """Right solutions: one answer flags many of them; of many votes only the lines it is always mistaken about stay."""
    problems, _ = solutions(400)
    rows = [{"prompt": problem.prompt, "steps": problem.gold_steps} for problem in problems]
    opinions = FallibleJudge(0.1, seed=3)
    systematic = [any(step_facts(s) and opinions._opinion(s) < 0.05 for s in row["steps"]) for row in rows]
    flagged = {}
    for votes in (1, 9):
        labels = judged_labels(rows, flips=0.1, seed=3, votes=votes)
        flagged[votes] = [not isinstance(one, Rejection) and one.first_error >= 0 for one in labels]
    clean = {
        n: [flag for flag, always in zip(flags, systematic, strict=True) if not always] for n, flags in flagged.items()
    }
    assert 20 < sum(systematic) < 200
    assert sum(clean[1]) / len(clean[1]) > 0.15 and sum(clean[9]) / len(clean[9]) < 0.02
    assert all(flag for flag, always in zip(flagged[9], systematic, strict=True) if always)


def test_tied_votes_are_no_label():
    rows = [{"prompt": p.prompt, "steps": p.gold_steps} for p in solutions(300)[0]]
    labels = judged_labels(rows, flips=0.2, seed=3, votes=2)
    tied = [one for one in labels if isinstance(one, Rejection)]
    assert 30 < len(tied) < 270 and all("tied votes" in one.reason for one in tied)


def test_the_same_seeds_give_the_same_answers_and_other_judges_differ():
    problems, steps = solutions(200)
    prompts = [p.prompt for p in problems]
    labels = [judge(prompts, steps, FallibleJudge(0.1, seed)) for seed in (0, 0, 1)]
    assert labels[0] == labels[1] != labels[2]


def test_a_question_about_something_else_is_refused():
    with pytest.raises(ValueError, match="judge knows problems of its own world"):
        FallibleJudge(0.1, 0).generate([[{"role": "user", "content": "What is 7 Add 5?"}]])
