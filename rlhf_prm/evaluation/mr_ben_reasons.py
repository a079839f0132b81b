"""The whole MR-Score: an LLM examines a solution, names its first wrong step and says why; another grades the reason.

MR-Ben (arXiv 2406.13975) grades a reason only where the step was named right, against the reasons that annotators gave.
Its coding part, whose steps are lines that are graded by their text, is not covered.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_prm.evaluation.mr_ben import MRBenItem, mr_score_parts
from rlhf_prm.evaluation.processbench import as_missed
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Task
from rlhf_prm.judges.budget import OVER_BUDGET
from rlhf_prm.judges.drive import drive
from rlhf_prm.judges.forms import UnparseableAnswer, without_thoughts
from rlhf_prm.judges.scorer import JudgeScorer
from rlhf_prm.judges.votes import Answered, ask_until_parsed

EXAMINE_PROMPT = """Below are a question and a step-by-step solution of it.

Question:
{question}

Solution:
{steps}

Check the solution step by step. It is correct if its reasoning holds and it gives the right answer. If it is not, \
find the first step with an error of fact, calculation or reasoning, say what is wrong there and write the step as it \
should be. Answer in exactly this form:

Solution Analysis: (your check of each step)
Solution Correctness: correct or incorrect
First Error Step: the number of the step, or N/A if the solution is correct
Error Reason: what is wrong in that step and what would be right, or N/A if the solution is correct"""

GRADE_PROMPT = """Below are a question, a wrong solution of it, its first wrong step with what is wrong there \
according to experts, and a student's explanation of the error.

Question:
{question}

Solution:
{steps}

First wrong step: {number}

The experts' reasons:
{reasons}

The experts' corrections of that step:
{corrections}

The student's explanation:
{explanation}

Does the student's explanation name the same error as the experts? Compare them in a few sentences, then end with \
one line, either "Final Decision: Correct" or "Final Decision: Wrong"."""

_FIELD = r"\**\s*{name}\s*:?\**\s*:?\s*"
_CORRECTNESS = re.compile(_FIELD.format(name="Solution Correctness") + r"\**\s*(correct|incorrect)\b", re.IGNORECASE)
_STEP = re.compile(_FIELD.format(name="First Error Step") + r"(?:step\s*)?([0-9]{1,4})\b", re.IGNORECASE)
_REASON = re.compile(_FIELD.format(name="Error Reason") + r"(.*)", re.IGNORECASE | re.DOTALL)
_DECISION = re.compile(r"\**\s*Final Decision\s*:?\**\s*:?\s*\**\s*(correct|wrong)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Examined:
    """What an LLM says of a solution: the 0-based first wrong step (−1 = none), and why it is wrong."""

    first_error: int
    reason: str


def read_examined(answer: str, num_steps: int) -> Examined:
    """Raises ``UnparseableAnswer`` for an answer without a verdict, or with a wrong solution and none of its steps."""
    answer = without_thoughts(answer)
    verdicts = _CORRECTNESS.findall(answer)
    if not verdicts:
        raise UnparseableAnswer("no 'Solution Correctness: correct' or 'incorrect'")
    if verdicts[-1].lower() == "correct":
        return Examined(-1, "")
    steps, reasons = _STEP.findall(answer), _REASON.findall(answer)
    if not steps or not 1 <= int(steps[-1]) <= num_steps:
        raise UnparseableAnswer(f"first error step {steps[-1:] or 'missing'}, expected a number from 1 to {num_steps}")
    return Examined(int(steps[-1]) - 1, reasons[-1].strip() if reasons else "")


def read_decision(answer: str) -> bool:
    """Whether the grader holds the reason for right; raises ``UnparseableAnswer`` where it does not say."""
    decisions = _DECISION.findall(without_thoughts(answer))
    if not decisions:
        raise UnparseableAnswer("no 'Final Decision: Correct' or 'Wrong'")
    return decisions[-1].lower() == "correct"


def graded_mr_ben(
    examiner: JudgeScorer, grader: JudgeScorer, items: Sequence[MRBenItem], *, attempts: int = 2, seed: int = 0
) -> dict[str, dict[str, float]]:
    """The MR-Score and its parts for each subject and for ``"all"`` samples together; ``"mean"`` is that of the
    subjects, the published number.

    An examination that cannot be read (``unreadable``) is a miss, whatever the solution; so is a reason that the grader
    does not decide on (``ungraded``).
    """
    examined = _answers(
        examiner,
        {i: _question(EXAMINE_PROMPT, item) for i, item in enumerate(items)},
        lambda i, answer: read_examined(answer, len(items[i].steps)),
        attempts,
        seed,
    )
    found = {i: one.first_error for i, one in examined.items()}
    named = [i for i, error in found.items() if error >= 0 and error == items[i].label]
    graded = _answers(
        grader,
        {i: _grading(items[i], examined[i].reason) for i in named if examined[i].reason},
        lambda i, answer: read_decision(answer),
        attempts,
        seed,
    )
    predictions = [found.get(i, as_missed(item.label)) for i, item in enumerate(items)]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.subject].append(index)
    results = {name: _scores(indices, items, predictions, found, graded, named) for name, indices in groups.items()}
    everything = _scores(list(range(len(items))), items, predictions, found, graded, named)
    mean = sum(row["mr_score"] for row in results.values()) / len(results)
    return {**results, "all": everything, "mean": {"mr_score": mean}}


def _scores(
    indices: list[int],
    items: Sequence[MRBenItem],
    predictions: Sequence[int],
    found: dict[int, int],
    graded: dict[int, bool],
    named: Sequence[int],
) -> dict[str, float]:
    parts = mr_score_parts([predictions[i] for i in indices], [items[i].label for i in indices])
    without_reason = parts.pop("mr_score_without_reason")
    wrong = [i for i in indices if items[i].label >= 0]
    acc_reason = sum(graded.get(i, False) for i in wrong) / len(wrong) if wrong else 0.0
    return {
        **parts,
        "acc_reason": acc_reason,
        "mr_score": without_reason + 0.5 * acc_reason,
        "samples": len(indices),
        "unreadable": sum(i not in found for i in indices),
        "ungraded": sum(i in named and i not in graded for i in indices),
    }


def _answers(
    judge: JudgeScorer, questions: dict[int, str], read: Callable[[int, str], Any], attempts: int, seed: int
) -> dict[int, Any]:
    """What is read from the answer to each question; those that cannot be read, or were refused, are left out.

    Raises:
        ValueError: the judge's budget does not last.
    """

    def asked(index: int, question: str) -> Task:
        return judge.meter.metered(
            ask_until_parsed(
                [{"role": "user", "content": question}],
                lambda answer: read(index, answer),
                attempts,
                lambda attempt: unit_seed(seed, "mr_ben", index, attempt),
            )
        )

    judge.meter.begin(None)
    results: dict[int, Any] = {}
    tasks = ((index, asked(index, question)) for index, question in questions.items())
    drive(tasks, judge.generator, results.__setitem__, judge.meter.seconds_left())
    if len(results) < len(questions) or any(result is OVER_BUDGET for result in results.values()):
        raise ValueError(f"the budget of {judge.name} is spent before all {len(questions)} questions were asked")
    return {
        index: result.value
        for index, result in results.items()
        if isinstance(result, Answered) and result.value is not None
    }


def _question(prompt: str, item: MRBenItem, **parts: str) -> str:
    steps = "\n".join(
        step if re.match(r"\s*Step\s+\d+", step) else f"Step {number}: {step}"
        for number, step in enumerate(item.steps, start=1)
    )
    values = {"question": item.problem, "steps": steps, **parts}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), prompt)


def _grading(item: MRBenItem, explanation: str) -> str:
    reasons = "\n".join(f"- {reason.strip()}" for reason in item.reasons) or "(none given)"
    corrections = "\n".join(f"- {step.strip()}" for step in item.corrections) or "(none given)"
    number = str(item.label + 1)
    return _question(
        GRADE_PROMPT, item, number=number, reasons=reasons, corrections=corrections, explanation=explanation
    )
