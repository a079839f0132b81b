"""The oracle and the scorers that mislead: hand-worked solutions, and what their errors may depend on."""

import pytest

from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.hostile import HOSTILE, HostileScorer
from rlhf_prm.toyworld.oracle import RIGHT, WRONG, OracleScorer

PROBLEM = "Left to right, mod 10: 7 Add 3 Times 4 Minus 2"
SOLUTION = ["7 Add 3 = 0", "0 Times 4 = 0", "0 Minus 2 = 8", "Answer: \\boxed{8}"]
SLIPPED = ["7 Add 3 = 0", "0 Times 4 = 4", "4 Minus 2 = 2", "Answer: \\boxed{2}"]
PROBLEMS = [
    f"Left to right, mod 10: {digit} {how} {operand}"
    for digit in range(10)
    for how, operand in (("Add", 3), ("Times", 4))
]


def lines(result):
    """One-step solutions of PROBLEMS that state the right result plus ``result``."""
    solved = []
    for problem in PROBLEMS:
        digit, how, operand = problem.removeprefix("Left to right, mod 10: ").split()
        right = int(digit) + int(operand) if how == "Add" else int(digit) * int(operand)
        solved.append([f"{digit} {how} {operand} = {(right + result) % 10}"])
    return solved


def test_the_oracle_gives_the_exact_labels():
    assert OracleScorer().score([PROBLEM, PROBLEM], [SOLUTION, SLIPPED]) == [[RIGHT] * 4, [RIGHT, WRONG, WRONG, WRONG]]
    assert OracleScorer().score([], []) == []


def test_flipped_everywhere_it_is_the_inverted_oracle():
    (right, slipped) = OracleScorer(random_flips=1.0).score([PROBLEM, PROBLEM], [SOLUTION, SLIPPED])
    assert right == [WRONG] * 4 and slipped == [WRONG, RIGHT, RIGHT, RIGHT]
    assert right == HostileScorer("inverted").score([PROBLEM], [SOLUTION])[0]


def test_a_mistaken_oracle_by_hand():
    """Mistaken about every line of an operation: the first right line ends the right part, a wrong one is passed."""
    (right, slipped) = OracleScorer(systematic_flips=1.0).score([PROBLEM, PROBLEM], [SOLUTION, SLIPPED])
    assert right == [WRONG] * 4
    assert slipped == [WRONG] * 4  # its first line is right, so the oracle stops there
    wrong_first = [["7 Add 3 = 1", "Answer: \\boxed{1}"]]
    # The wrong line passes; the answer is no line of an operation, so the oracle is not mistaken about it: it follows
    # from the line as it stands.
    assert OracleScorer(systematic_flips=1.0).score(["Left to right, mod 10: 7 Add 3"], wrong_first) == [[RIGHT, RIGHT]]


def test_random_flips_have_their_share_and_depend_on_the_prefix_alone():
    oracle = OracleScorer(random_flips=0.25, seed=1)
    problems, steps = PROBLEMS * 2, [*lines(0), *lines(1)]
    scores = oracle.score(problems, steps)
    assert scores == oracle.score(problems, steps) == OracleScorer(random_flips=0.25, seed=1).score(problems, steps)
    assert scores != OracleScorer(random_flips=0.25, seed=2).score(problems, steps)
    longer = oracle.score(problems, [[*row, "Answer: \\boxed{1}"] for row in steps])
    assert [row[0] for row in longer] == [row[0] for row in scores]  # what follows changes nothing
    many = [f"Left to right, mod 10: {d} Add {k} Add {m}" for d in range(10) for k in range(2, 7) for m in range(2, 7)]
    first = [[f"{p.split()[5]} Add {p.split()[7]} = {(int(p.split()[5]) + int(p.split()[7])) % 10}"] for p in many]
    flipped = [row[0] == WRONG for row in oracle.score(many, first)]
    assert 0.15 < sum(flipped) / len(flipped) < 0.35  # 250 draws: .25 ± .027


def test_systematic_flips_are_the_same_in_every_solution():
    oracle = OracleScorer(systematic_flips=0.5, seed=3)
    scores = [row[0] for row in oracle.score(PROBLEMS, lines(0))]
    assert {RIGHT, WRONG} == set(scores)
    elsewhere = [f"{problem} Add 2" for problem in PROBLEMS]  # another problem, the same first line
    assert [row[0] for row in oracle.score(elsewhere, lines(0))] == scores


@pytest.mark.parametrize("name", ["random_flips", "systematic_flips"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_share_outside_0_and_1_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: got {value}, expected a share between 0 and 1"):
        OracleScorer(**{name: value})


def test_hostile_scorers_by_hand():
    steps = ["7 Add 3 = 0", "0 Times 4 = 4"]  # 10 words; the second step is wrong
    by_hand = {
        "inverted": [WRONG, RIGHT],
        "constant": [0.75, 0.75],
        "rising": [0.1, 0.2],
        "likes_long": [0.25, 0.25],
        "likes_short": [0.75, 0.75],
    }
    for rule, wanted in by_hand.items():
        assert HostileScorer(rule).score([PROBLEM], [steps]) == [pytest.approx(wanted)], rule
    assert {*by_hand, "noise"} == set(HOSTILE)
    filler = ["Let me check."] * 40  # 120 words: the scores stay inside [.02, .98]
    assert HostileScorer("likes_long").score([PROBLEM], [filler])[0][0] == RIGHT
    assert HostileScorer("likes_short").score([PROBLEM], [filler])[0][0] == WRONG
    assert max(HostileScorer("rising").score([PROBLEM], [filler])[0]) == RIGHT


def test_noise_is_spread_and_knows_nothing():
    scorer = HostileScorer("noise")
    problems, steps = PROBLEMS * 10, [row for shift in range(10) for row in lines(shift)]
    scores = [row[0] for row in scorer.score(problems, steps)]
    assert scores == [row[0] for row in scorer.score(problems, steps)]
    assert len(set(scores)) == 200 and 0.43 < sum(scores) / 200 < 0.57  # ½ ± .02
    labels = [step_labels(problem, row)[0] for problem, row in zip(problems, steps, strict=True)]
    right = [score for score, label in zip(scores, labels, strict=True) if label]
    assert len(right) == 20 and 0.3 < sum(right) / 20 < 0.7  # ½ ± .065


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="rule: got 'evil', expected one of inverted, constant"):
        HostileScorer("evil")
