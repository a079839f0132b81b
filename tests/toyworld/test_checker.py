import pytest

from rlhf_prm.toyworld.checker import process_correct, step_facts, step_labels, step_verdicts
from rlhf_prm.toyworld.problems import ChainProblem

PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))  # 2, 6, 8
ONE, TWO, THREE, ANSWER = PROBLEM.gold_steps

CASES = [  # steps, labels, process correct
    ([ONE, TWO, THREE, ANSWER], "1111", True),
    (["7 Add 5 = 3", "3 Minus 6 = 7", "7 Times 3 = 1", "Answer: \\boxed{1}"], "0000", False),
    ([ONE, "2 Minus 6 = 5", "5 Times 3 = 5", "Answer: \\boxed{5}"], "1000", False),
    ([ONE, "2 Minus 6 = 1", "1 Times 3 = 8", ANSWER], "1000", False),  # two false facts, the right answer
    ([ONE, "2 Times 3 = 6", "Answer: \\boxed{6}"], "100", False),  # an operation skipped
    ([ONE, TWO, "Answer: \\boxed{6}"], "110", False),  # stopped early
    ([ONE, TWO, THREE], "111", False),  # never answers
    ([ONE, TWO, THREE, "Answer: \\boxed{7}"], "1110", False),
    ([ONE, "3 Minus 6 = 7", THREE, ANSWER], "1000", False),  # a digit copied wrongly, a true fact
    ([ONE, TWO, THREE, "8 Add 2 = 0", "Answer: \\boxed{0}"], "11100", False),  # an operation too many
    ([ONE, TWO, THREE, ANSWER, ANSWER], "11110", False),  # goes on after the answer
    ([ONE, ONE, TWO, THREE, ANSWER], "10000", False),  # a line twice
    (["Let me check.", ONE, "So far so good.", TWO, THREE, ANSWER], "111111", True),
    ([ONE, TWO, THREE, ANSWER, "This looks right."], "11110", False),
    (["7 Add 5 = 12", TWO], "00", False),
    (["", ONE], "00", False),
    ([ANSWER], "0", False),  # guessed
    ([], "", False),
]


@pytest.mark.parametrize(("steps", "labels", "correct"), CASES)
def test_hand_worked_chains(steps, labels, correct):
    assert step_labels(PROBLEM, steps) == [label == "1" for label in labels]
    assert step_labels(PROBLEM.prompt, [f" {step}\n" for step in steps]) == [label == "1" for label in labels]
    assert process_correct(PROBLEM, steps) is correct


def test_a_false_step_can_be_washed_out():
    problem = ChainProblem(3, (("Times", 5), ("Times", 2)))  # 5, 0; one times two would be 2, three times two 6
    steps = ["3 Times 5 = 0", "0 Times 2 = 0", "Answer: \\boxed{0}"]
    assert step_labels(problem, steps) == [False, False, False]
    assert problem.solution == "0" and not process_correct(problem, steps)


@pytest.mark.parametrize(
    ("steps", "verdicts"),
    [
        (["7 Add 5 = 3", "3 Minus 6 = 7", "7 Times 3 = 1", "Answer: \\boxed{1}"], "0111"),
        ([ONE, "2 Times 3 = 6", "Answer: \\boxed{6}"], "101"),  # skipped: the chain is done all the same
        ([ONE, "3 Minus 6 = 7", "7 Times 3 = 1", "Answer: \\boxed{1}"], "1011"),
        (["8 Add 2 = 0", "0 Minus 6 = 4", "4 Times 3 = 2", "Answer: \\boxed{2}"], "0111"),
    ],
)
def test_a_step_by_itself_takes_the_ones_before_as_they_stand(steps, verdicts):
    assert step_verdicts(PROBLEM, steps) == [verdict == "1" for verdict in verdicts]


def test_what_a_line_states():
    assert step_facts("7 Add 5 = 3") == (7, "Add", 5, 3)
    assert step_facts(ANSWER) is None and step_facts("So far so good.") is None
