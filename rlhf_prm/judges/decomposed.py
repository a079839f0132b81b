"""A judge that is asked three small questions about each paragraph: its calculations, inferences and use of the givens.

Each question is asked separately, about one paragraph with those before it in view. A paragraph is wrong if one of the
answers says so, and the judge stops at the first wrong one. The parsed answers also train a student:
a small PRM that reads the question as a mark before the problem. Its score of a step is the lowest over the marks.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.generation.tasks import Rejection, Task
from rlhf_prm.judges.budget import OVER_BUDGET
from rlhf_prm.judges.drive import drive
from rlhf_prm.judges.forms import UnparseableAnswer, without_thoughts
from rlhf_prm.judges.readers import Reading
from rlhf_prm.judges.votes import ask_until_parsed
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.step_data import StepLabels

ASPECTS: dict[str, str] = {
    "calculation": (
        "Look only at its calculations: numbers, algebra, units. Do each of them again. Whether they are the right "
        "ones to do is not asked."
    ),
    "inference": (
        "Look only at its inferences: does it follow from the paragraphs before it, taken as they stand, even where "
        "one of those is wrong? Whether its arithmetic is right is not asked."
    ),
    "givens": (
        "Look only at its use of what the problem gives: are the numbers, conditions and the question those of the "
        "problem, and is none of them changed, made up or left out where it is needed?"
    ),
}
MARKS: dict[str, str] = {  # put before the problem, for a student
    "calculation": "Check the calculations only.\n\n",
    "inference": "Check the inferences only.\n\n",
    "givens": "Check the use of what is given only.\n\n",
}
ASPECT_PROMPT = """Below are a mathematics problem and the beginning of a solution, cut into numbered paragraphs.

[Math Problem]

{problem}

[Solution]

{paragraphs}

Judge paragraph {number}, the last one, in one respect. {question} If there is nothing of that kind in it, it is \
correct in that respect.

Explain briefly, then end your answer with \\boxed{correct} or \\boxed{incorrect}."""

_VERDICT = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*(correct|incorrect)\s*\}", re.IGNORECASE)
Verdicts = list[dict[str, float]]  # of each paragraph up to the first wrong one: 1, 0 or NaN for each aspect


def aspect_messages(problem: str, steps: Sequence[str], aspect: str) -> list[dict[str, str]]:
    """The question about the last of the steps in one respect, as a chat."""
    tagged = "\n\n".join(
        f"<paragraph_{number}>\n{step}\n</paragraph_{number}>" for number, step in enumerate(steps, start=1)
    )
    parts = {"problem": problem, "paragraphs": tagged, "number": str(len(steps)), "question": ASPECTS[aspect]}
    text = re.sub(r"\{(problem|paragraphs|number|question)\}", lambda match: parts[match[1]], ASPECT_PROMPT)
    return [{"role": "user", "content": text}]


def read_aspect(answer: str) -> float:
    """1 for correct, 0 for incorrect; raises ``UnparseableAnswer`` if the answer has no such box."""
    found = _VERDICT.findall(without_thoughts(answer))
    if not found:
        raise UnparseableAnswer("no \\boxed{correct} or \\boxed{incorrect}")
    return float(found[-1].lower() == "correct")


def step_score(verdict: Mapping[str, float]) -> float:
    """0 if the step is wrong in one respect, 1 if it is right in all; NaN if none is wrong and one is unknown."""
    if 0.0 in verdict.values():
        return 0.0
    return math.nan if any(math.isnan(value) for value in verdict.values()) else 1.0


def aspects_task(problem: str, steps: Sequence[str], seed: int, attempts: int) -> Task:
    """All questions about a solution, up to its first wrong paragraph; returns (``Verdicts``, unreadable attempts)."""
    verdicts: Verdicts = []
    unreadable = 0
    for k in range(len(steps)):
        verdict = {}
        for aspect in ASPECTS:
            answered = yield from ask_until_parsed(
                aspect_messages(problem, steps[: k + 1], aspect),
                read_aspect,
                attempts,
                lambda attempt, about=(k, aspect): unit_seed(seed, *about, attempt),
                group=problem,
            )
            unreadable += len(answered.reasons)
            verdict[aspect] = math.nan if answered.value is None else answered.value
        verdicts.append(verdict)
        if step_score(verdict) == 0.0:
            break
    return verdicts, unreadable


class DecomposedReader:
    """A ``Reader`` (``form="decomposed"``): three questions for each paragraph, up to the first wrong one.

    Args:
        attempts: tries per question.
    """

    scope = "solution"
    verdicts = True

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.settings = {"form": "decomposed", "aspects": list(ASPECTS), "attempts": attempts}

    def ask(self, problem: str, steps: Sequence[str], seed: int, before: Sequence[str]) -> Task:
        """See ``Reader``; the text is the JSON of the answers to all questions."""
        verdicts, unreadable = yield from aspects_task(problem, steps, seed, self.attempts)
        scores = [step_score(verdict) for verdict in verdicts]
        text = json.dumps([{name: None if math.isnan(v) else v for name, v in one.items()} for one in verdicts])
        if all(map(math.isnan, scores)):
            return Reading(None, text, unreadable)
        return Reading(scores + [math.nan] * (len(steps) - len(scores)), text, unreadable)


def decomposed_verdicts(
    judge: Any, problems: Sequence[str], steps: Sequence[Sequence[str]], *, seed: int = 0, attempts: int = 2
) -> list[Verdicts | Rejection]:
    """A judge's answers to the small questions about each solution.

    Args:
        judge: a ``JudgeScorer``, whose generator and budget are used.

    Raises:
        ValueError: its budget is too small.
    """
    judge.meter.begin(None)
    tasks = (
        (i, judge.meter.metered(aspects_task(problem, list(row), unit_seed(seed, "aspects", problem, *row), attempts)))
        for i, (problem, row) in enumerate(zip(problems, steps, strict=True))
    )
    results: dict[int, Any] = {}
    drive(tasks, judge.generator, results.__setitem__, judge.meter.seconds_left())
    if len(results) < len(problems) or any(result is OVER_BUDGET for result in results.values()):
        raise ValueError(f"the budget of {judge.name} is spent before all {len(problems)} solutions were judged")
    return [results[i] if isinstance(results[i], Rejection) else results[i][0] for i in range(len(problems))]


def student_rows(
    problem: str, steps: Sequence[str], verdicts: Verdicts, marks: Mapping[str, str] = MARKS
) -> list[dict[str, Any]]:
    """Stepwise rows to train a student on: one for each aspect, with its mark before the problem.

    A row ends with the first wrong paragraph, whichever aspect it is wrong in, and before an answer that could not be
    read. Labels are those of its aspect, so a row may end in a step that is right in this respect.
    """
    rows = []
    for aspect, mark in marks.items():
        values = [verdict[aspect] for verdict in verdicts]
        known = next((k for k, value in enumerate(values) if math.isnan(value)), len(values))
        if known:
            labels = StepLabels([value > 0 for value in values[:known]], values[:known], f"aspect:{aspect}")
            rows.append(labels.row(mark + problem, list(steps[:known])))
    return rows


def together_row(problem: str, steps: Sequence[str], verdicts: Verdicts) -> list[dict[str, Any]]:
    """The stepwise row of all answers combined, for a student that is asked one question.

    A step is right if it is right in every respect. The row ends before an unknown step; an empty row is left out.
    """
    scores = [step_score(verdict) for verdict in verdicts]
    known = next((k for k, score in enumerate(scores) if math.isnan(score)), len(scores))
    if not known:
        return []
    labels = StepLabels([score > 0 for score in scores[:known]], scores[:known], "judge")
    return [labels.row(problem, list(steps[:known]))]


class DecomposedScorer:
    """A student as a ``StepScorer``: a step's score is its lowest score over the marks.

    Args:
        prm: trained on ``student_rows``.
        marks: those it was trained with.
    """

    def __init__(self, prm: StepScorer, marks: Mapping[str, str] = MARKS) -> None:
        self.prm, self.marks = prm, dict(marks)

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        """See ``StepScorer.score``; NaN where one of the scores is."""
        asked = [mark + problem for mark in self.marks.values() for problem in problems]
        rows = self.prm.score(asked, list(steps) * len(self.marks))
        parts = [rows[start : start + len(problems)] for start in range(0, len(rows), len(problems) or 1)]
        return [
            [math.nan if any(map(math.isnan, told)) else min(told) for told in zip(*of_one, strict=True)]
            for of_one in zip(*parts, strict=True)
        ]
