"""The exact checker of the toy world: which steps are right, and whether the whole process is.

``Checker`` is the interface that the oracle, the judge and the labels use for any world.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import and_

from rlhf_prm.toyworld.problems import FILLERS, HEADER, OPERATIONS, ChainProblem, result

_STEP = re.compile(rf"(\d) ({'|'.join(OPERATIONS)}) (\d) = (\d)")
_ANSWER = re.compile(r"Answer: \\boxed\{(\d)\}")
_PROBLEM = re.compile(rf"^{re.escape(HEADER)}.*$", re.MULTILINE)


@dataclass(frozen=True)
class Checker:
    """The exact checker of a world, for the oracle, the fallible judge and the labels.

    Args:
        verdicts: (problem, steps) → whether each step follows from the problem and the steps before it as they stand.
        fact: step → the calculation that it states, in one form whatever the wording; None for other steps.
        problem_in: a judge's question → the problem in it; None if it has none of this world.
    """

    verdicts: Callable[[str, Sequence[str]], list[bool]]
    fact: Callable[[str], str | None]
    problem_in: Callable[[str], str | None]

    def labels(self, problem: str, steps: Sequence[str]) -> list[bool]:
        """True for every step up to the first error, False from there on."""
        return list(accumulate(self.verdicts(problem, steps), and_))


def step_verdicts(problem: ChainProblem | str, steps: Sequence[str]) -> list[bool]:
    """Whether each step follows from the ones before it *as they stand*, right or wrong.

    A step is right when it does the problem's next operation on the digit reached so far and gets the right digit; the
    answer is right when it follows the last operation and repeats the digit reached. A filler line is right anywhere
    before the answer. Anything else, and anything after the answer, is an error.
    """
    problem = problem if isinstance(problem, ChainProblem) else ChainProblem.parse(problem)
    chain, digit, done, answered, verdicts = problem.chain, problem.start, 0, False, []
    for step in steps:
        text = step.strip()
        if answered:
            verdicts.append(False)
        elif text in FILLERS:
            verdicts.append(True)
        elif match := _ANSWER.fullmatch(text):
            answered = True
            verdicts.append(done == len(chain) and int(match[1]) == digit)
        elif facts := step_facts(text):
            start, operation, operand, stated = facts
            is_next = chain[done : done + 1] == ((operation, operand),)
            verdicts.append(is_next and start == digit and stated == result(start, operation, operand))
            digit, done = stated, _operations_done(chain, done, (operation, operand))
        else:
            verdicts.append(False)
    return verdicts


def _operations_done(chain: tuple[tuple[str, int], ...], done: int, link: tuple[str, int]) -> int:
    """How many operations are done after ``link``: up to its next place in the chain, or one more if it has none."""
    return chain.index(link, done) + 1 if link in chain[done:] else done + 1


def step_labels(problem: ChainProblem | str, steps: Sequence[str]) -> list[bool]:
    """True for every step up to the first error, False from there on."""
    return list(accumulate(step_verdicts(problem, steps), and_))


def step_facts(step: str) -> tuple[int, str, int, int] | None:
    """(digit, operation, operand, result) as an operation's line states them; None for any other line."""
    match = _STEP.fullmatch(step.strip())
    return (int(match[1]), match[2], int(match[3]), int(match[4])) if match else None


def process_correct(problem: ChainProblem | str, steps: Sequence[str]) -> bool:
    """Every step right, and the answer given."""
    return bool(steps) and all(step_labels(problem, steps)) and _ANSWER.fullmatch(steps[-1].strip()) is not None


def _problem_in(question: str) -> str | None:
    found = _PROBLEM.search(question)
    return found[0] if found else None


def _fact(step: str) -> str | None:
    return None if step_facts(step) is None else step.strip()


CHAINS = Checker(step_verdicts, _fact, _problem_in)
