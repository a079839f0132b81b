"""The exact checker of word problems: which steps are right, and whether the whole process is."""

import re
from collections.abc import Sequence

from rlhf_prm.toyworld.checker import Checker
from rlhf_prm.wordproblems.problems import Calculation, WordProblem

_CALCULATION = re.compile(r"(?<![\d.,])(\d+) ?([-+*/×÷−x]) ?(\d+) ?= ?(\d+)(?!\d|[.,]\d)")
_WRITTEN_AS = {"×": "*", "x": "*", "÷": "/", "−": "-"}
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_QUESTION = re.compile(r"\[Math Problem\]\n\n(.*?)\n\n\[Solution\]", re.DOTALL)


def stated_calculations(step: str) -> list[tuple[Calculation, int]] | None:
    """Every calculation in a step, with its stated result; None if an equals sign belongs to no calculation."""
    found = [
        (Calculation(int(left), _WRITTEN_AS.get(sign, sign), int(right)), int(stated))
        for left, sign, right, stated in _CALCULATION.findall(step)
    ]
    return found if len(found) == step.count("=") else None


def step_verdicts(problem: WordProblem | str, steps: Sequence[str]) -> list[bool]:
    """Whether each step follows from the problem and the steps before it *as they stand*, right or wrong.

    A step is right when it calculates, with the right result, one or more numbers that the problem asks for, each once,
    from numbers that the problem states or that earlier steps have reached. The order is free if the problem leaves
    it free. After an error the calculations that build on its result are expected with the wrong number. The answer is
    right when every calculation is done and it repeats the last result. A step that calculates nothing, and anything
    after the answer, is an error: nothing in it can be checked.
    """
    problem = problem if isinstance(problem, WordProblem) else WordProblem.parse(problem)
    chain, verdicts, answered = _Plan(problem), [], False
    for step in steps:
        stated, boxes = stated_calculations(step), _BOX.findall(step)
        if answered or stated is None or not (stated or boxes):
            verdicts.append(False)
            answered = answered or bool(boxes)
            continue
        right = all([chain.does(*one) for one in stated])  # a list, so that calculations after a wrong one count too
        if boxes:
            answered = True
            right = right and chain.finished and [box.strip() for box in boxes] == [str(chain.reached)]
        verdicts.append(right)
    return verdicts


class _Plan:
    """The calculations of a problem, and the results that a solution has stated for those it has done."""

    def __init__(self, problem: WordProblem) -> None:
        self.plan, self.uses = problem.plan, problem.uses
        self.results: dict[int, int] = {}  # index in the plan → the result stated

    @property
    def finished(self) -> bool:
        return len(self.results) == len(self.plan)

    @property
    def reached(self) -> int | None:
        """The stated result of the last calculation."""
        return self.results.get(len(self.plan) - 1)

    def does(self, calculation: Calculation, stated: int) -> bool:
        """Mark a calculation as done if it is expected now; returns whether it is, with the right result."""
        for index in range(len(self.plan)):
            if index not in self.results and self._expected(index) == calculation.key:
                self.results[index] = stated
                return calculation.result == stated
        return False

    def _expected(self, index: int) -> tuple[int, str, int] | None:
        """A calculation with the numbers of the steps so far; None while a number that it needs is not reached."""
        here, (from_left, from_right) = self.plan[index], self.uses[index]
        left = here.left if from_left is None else self.results.get(from_left)
        right = here.right if from_right is None else self.results.get(from_right)
        return None if left is None or right is None else Calculation(left, here.operation, right).key


def step_labels(problem: WordProblem | str, steps: Sequence[str]) -> list[bool]:
    """True for every step up to the first error, False from there on."""
    return WORDS.labels(problem, steps)


def process_correct(problem: WordProblem | str, steps: Sequence[str]) -> bool:
    """Every step right, and the answer given."""
    return bool(steps) and all(step_verdicts(problem, steps)) and bool(_BOX.search(steps[-1]))


def _fact(step: str) -> str | None:
    stated = stated_calculations(step)
    return " ".join(f"{c.left}{c.operation}{c.right}={n}" for c, n in stated) if stated else None


def _problem_in(question: str) -> str | None:
    found = _QUESTION.search(question)
    return found[1] if found else None


WORDS = Checker(step_verdicts, _fact, _problem_in)
