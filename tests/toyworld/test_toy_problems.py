import random

import pytest

from rlhf_prm.toyworld.demonstrator import Demonstrator
from rlhf_prm.toyworld.evaluate import evaluate_completions, final_answer
from rlhf_prm.toyworld.problems import FACTS, SEPARATOR, ChainProblem, draw_splits
from rlhf_prm.toyworld.settings import ToyWorldSettings

# 7 + 5 = 12 → 2;  2 - 6 = -4 → 6;  6 * 3 = 18 → 8
PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))


def test_a_problem_and_its_solution_as_text():
    assert PROBLEM.prompt == "Left to right, mod 10: 7 Add 5 Minus 6 Times 3\n\n"
    assert PROBLEM.gold_steps == ["7 Add 5 = 2", "2 Minus 6 = 6", "6 Times 3 = 8", "Answer: \\boxed{8}"]
    assert PROBLEM.solution == "8"


def test_parsing_gives_the_problem_back():
    for problem in draw_splits(0, (3, 9), {"any": 50})["any"]:
        assert ChainProblem.parse(problem.prompt) == problem
        assert ChainProblem.parse(problem.prompt.strip()) == problem


@pytest.mark.parametrize(
    "prompt", ["", "What is 7 Add 5?", "Left to right, mod 10: 7", "Left to right, mod 10: 7 Add 15", "7 Divide 2"]
)
def test_parsing_refuses_other_text(prompt):
    with pytest.raises(ValueError, match="expected"):
        ChainProblem.parse(prompt)


def test_splits_are_disjoint_and_stay_when_a_later_one_grows():
    small = draw_splits(3, (3, 5), {"eval": 300, "train": 100})
    large = draw_splits(3, (3, 5), {"eval": 300, "train": 5000})
    assert large["eval"] == small["eval"] and large["train"][:100] == small["train"]
    everything = large["eval"] + large["train"]
    assert len(set(everything)) == 5300
    assert {len(problem.chain) for problem in everything} == {3, 4, 5}
    assert draw_splits(4, (3, 5), {"eval": 300})["eval"] != small["eval"]


def test_the_demonstrator_believes_a_third_of_the_facts_wrongly_and_seeds_differ():
    first, second = Demonstrator(0), Demonstrator(1)
    assert len(FACTS) == 150 and len(first.beliefs) == len(second.beliefs) == 52
    assert first.beliefs != second.beliefs and first.beliefs == Demonstrator(0).beliefs


def test_the_demonstrator_is_imperfect_in_the_measured_range():
    rng, demonstrator = random.Random(0), Demonstrator(5)
    problems = draw_splits(5, (3, 5), {"any": 3000})["any"]
    shown = evaluate_completions(problems, [SEPARATOR.join(demonstrator.solution(p, rng)) for p in problems])
    assert 0.25 < shown["accuracy"] < 0.45
    assert 0.03 < shown["accuracy"] - shown["process_accuracy"] < 0.12


def test_final_answer_is_the_last_box():
    assert final_answer("Answer: \\boxed{3}\n\nAnswer: \\boxed{ 4 }") == "4"
    assert final_answer("7 Add 5 = 2") is None


def test_accuracies_counted_by_hand():
    right = SEPARATOR.join(PROBLEM.gold_steps)
    lucky = SEPARATOR.join(["7 Add 5 = 1", "1 Minus 6 = 5", "5 Times 3 = 8", "Answer: \\boxed{8}"])
    wrong = SEPARATOR.join([*PROBLEM.gold_steps[:3], "Answer: \\boxed{7}"])
    scores = evaluate_completions([PROBLEM] * 4, [right, lucky, wrong, ""])
    assert scores == {"accuracy": 0.5, "process_accuracy": 0.25}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"label_source": "human"}, "consensus, confirmed, mc, judge, gold"),
        ({"gold_fraction": 1.5}, "between 0 and 1"),
        ({"mc_completions": 0}, "mc_completions"),
        ({"prm_rows": 0}, "prm_rows"),
    ],
)
def test_settings_refuse_what_cannot_be(wrong, named):
    with pytest.raises(ValueError, match=named):
        ToyWorldSettings(**wrong)
