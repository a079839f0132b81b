"""The checker of word problems: solutions by hand, planted errors, and the judge and oracle built on it."""

import random

import pytest
from hypothesis import given, settings, strategies as st

from rlhf_prm.annotate.judge import judge
from rlhf_prm.judges.forms import FORMS
from rlhf_prm.toyworld.judge import FallibleJudge
from rlhf_prm.toyworld.labels import gold_labels, judged_labels
from rlhf_prm.toyworld.oracle import OracleScorer
from rlhf_prm.wordproblems.checker import WORDS, process_correct, stated_calculations, step_labels, step_verdicts
from rlhf_prm.wordproblems.problems import draw_problem, draw_splits

PROBLEM = "Nora bought 6 tins of 8 buttons each. 5 visitors take 3 buttons each. How many buttons does Nora have now?"
GOLD = ["First, that makes 6*8=48 buttons.", "In total 5*3=15 are gone.", "So 48-15=33 remain.", "It is \\boxed{33}."]


def with_step(k, text):
    return [*GOLD[:k], text, *GOLD[k + 1 :]]


@pytest.mark.parametrize(
    ("steps", "verdicts"),
    [
        (GOLD, [True, True, True, True]),
        ([GOLD[1], GOLD[0], *GOLD[2:]], [True, True, True, True]),  # the order of the first two is free
        (["8 × 6 = 48 and 3 x 5 = 15", *GOLD[2:]], [True, True, True]),  # two in one step, factors exchanged
        ([*GOLD[:2], "48-15=33, so \\boxed{33}"], [True, True, True]),  # the answer with the last calculation
        (with_step(0, "6*8=46"), [False, True, False, False]),  # what builds on it is expected with 46
        (["6*8=46", GOLD[1], "46-15=31", "\\boxed{31}"], [False, True, True, True]),  # follows from what stands there
        (with_step(2, "15-48=33"), [True, True, False, False]),  # no commuting of a difference
        (with_step(2, "48+15=63"), [True, True, False, False]),  # another operation than the problem's
        ([GOLD[2], *GOLD[:2], GOLD[3]], [False, True, True, False]),  # its numbers were not reached yet
        ([GOLD[0], GOLD[0], *GOLD[1:]], [True, False, True, True, True]),  # once is enough
        ([GOLD[3]], [False]),  # an answer out of nothing
        (with_step(3, "It is \\boxed{34}."), [True, True, True, False]),
        ([*GOLD, "So there."], [True, True, True, True, False]),  # anything after the answer
        (["Let me think.", *GOLD], [False, True, True, True, True]),
        (with_step(1, "5*3=15=15"), [True, False, False, False]),  # an equals sign that is checked by nobody
        (with_step(0, "6*8=48.5"), [False, True, False, False]),
        (with_step(0, "16*8=48"), [False, True, False, False]),  # no 6*8 inside 16*8
        ([], []),
    ],
)
def test_by_hand(steps, verdicts):
    assert step_verdicts(PROBLEM, steps) == verdicts
    first = verdicts.index(False) if False in verdicts else len(verdicts)
    assert step_labels(PROBLEM, steps) == [k < first for k in range(len(verdicts))]


def test_the_whole_process_needs_the_answer():
    assert process_correct(PROBLEM, GOLD)
    assert not process_correct(PROBLEM, GOLD[:3]) and not process_correct(PROBLEM, [])
    assert not process_correct(PROBLEM, with_step(0, "6*8=46"))


@given(st.integers(0, 10**9))
@settings(deadline=None, max_examples=200)
def test_every_gold_solution_is_right_and_every_planted_error_is_found(seed):
    rng = random.Random(seed)
    problem = draw_problem(rng)
    steps = list(problem.gold_steps)
    assert process_correct(problem.text, steps)
    k = rng.randrange(len(problem.plan))
    ((calculation, stated),) = stated_calculations(steps[k])
    wrong = stated + rng.choice([-10, -1, 1, 10])
    if wrong >= 0:
        steps[k] = steps[k].replace(str(calculation), str(calculation).split("=")[0] + f"={wrong}")
        assert step_labels(problem.text, steps) == [i < k for i in range(len(steps))]
    skipped = [step for i, step in enumerate(problem.gold_steps) if i != k]
    assert not process_correct(problem.text, skipped)


def test_an_infallible_judge_is_the_checker_and_a_fallible_one_errs_about_facts():
    problems = draw_splits(0, {"sft": 150})["sft"]
    rows = [{"prompt": p.text, "steps": list(p.gold_steps), "solution": p.solution} for p in problems]
    for row in rows[::2]:
        row["steps"][1] = "That gives 2+2=5."
    gold = [one.first_error for one in gold_labels(rows, WORDS)]
    assert gold == [1 if i % 2 == 0 else -1 for i in range(150)]
    assert [one.first_error for one in judged_labels(rows, flips=0.0, seed=0, checker=WORDS)] == gold
    fallible = [one.first_error for one in judged_labels(rows, flips=0.2, seed=0, checker=WORDS)]
    assert 0.1 < sum(a != b for a, b in zip(fallible, gold, strict=True)) / 150 < 0.7


def test_systematic_errors_are_about_the_calculation_not_the_words_around_it():
    """The same fact in other words, in another problem: the judge and the oracle err about it alike."""
    other = PROBLEM.replace("Nora", "Igor").replace("buttons", "eggs")
    same = ["All in all 8*6 = 48 eggs.", *GOLD[1:]]
    assert WORDS.fact("That is 6*8=48.") == WORDS.fact("So 6 * 8 = 48 eggs") == "6*8=48"
    assert WORDS.fact(GOLD[3]) is None
    facts = [WORDS.fact(step) for step in ("That is 6*8=48.", "Thus 6 × 8 = 48!")]
    assert len(set(facts)) == 1
    oracle = OracleScorer(systematic_flips=1.0, checker=WORDS)
    assert oracle.score([PROBLEM, other], [GOLD, same]) == [[0.02] * 4] * 2
    assert OracleScorer(checker=WORDS).score([PROBLEM], [GOLD]) == [[0.98] * 4]


@pytest.mark.parametrize("form", ["paper", "processbench", "verdicts"])
def test_the_problem_is_found_in_every_form(form):
    (question,) = FORMS[form].messages(PROBLEM, GOLD)
    assert WORDS.problem_in(question["content"]) == PROBLEM
    assert WORDS.problem_in("Left to right, mod 10: 7 Add 3") is None


def test_a_judge_of_another_world_says_so():
    with pytest.raises(ValueError, match="problems of its own world"):
        judge([PROBLEM], [GOLD], FallibleJudge(0.1, seed=0))
