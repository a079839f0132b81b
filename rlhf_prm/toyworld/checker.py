"""The exact checker of the toy world: which steps are right, and is the whole process right."""

import re
from collections.abc import Sequence

from rlhf_prm.toyworld.problems import FILLERS, OPERATIONS, Problem

_STEP = re.compile(rf"(\d) ({'|'.join(OPERATIONS)}) (\d) = (\d)")
_ANSWER = re.compile(r"Answer: \\boxed\{(\d)\}")


def step_labels(problem: Problem | str, steps: Sequence[str]) -> list[bool]:
    """True for every step up to the first error, False from there on.

    A step is right when it does the problem's next operation on the digit before it and gets the right digit; the
    answer is right when it follows the last operation and repeats its digit. A filler line is right anywhere before
    the answer. Anything else, and anything after the answer, is an error.
    """
    problem = problem if isinstance(problem, Problem) else Problem.parse(problem)
    digits = (problem.start, *problem.values)
    done, answered, labels = 0, False, []
    for step in steps:
        text = step.strip()
        if answered:
            break
        if text in FILLERS:
            labels.append(True)
        elif match := _ANSWER.fullmatch(text):
            if done != len(problem.chain) or int(match[1]) != digits[-1]:
                break
            answered = True
            labels.append(True)
        elif (match := _STEP.fullmatch(text)) and done < len(problem.chain):
            operation, operand = problem.chain[done]
            wanted = (str(digits[done]), operation, str(operand), str(digits[done + 1]))
            if match.groups() != wanted:
                break
            done += 1
            labels.append(True)
        else:
            break
    return labels + [False] * (len(steps) - len(labels))


def step_facts(step: str) -> tuple[int, str, int, int] | None:
    """(digit, operation, operand, result) as an operation's line states them; None for any other line."""
    match = _STEP.fullmatch(step.strip())
    return (int(match[1]), match[2], int(match[3]), int(match[4])) if match else None


def process_correct(problem: Problem | str, steps: Sequence[str]) -> bool:
    """Every step right, and the answer given."""
    return bool(steps) and all(step_labels(problem, steps)) and _ANSWER.fullmatch(steps[-1].strip()) is not None
