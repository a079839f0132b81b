"""Rubrics: a judge says which items of a list a solution satisfies and at which step, or marks the whole process.

``rubric`` is the form of SRaR (arXiv 2605.17291): each problem has items of three kinds, SUGGEST (a step that a good
solution takes), PITFALL (a mistake to avoid) and BONUS (an uncommon way); a satisfied item adds to the score of its
step. ``grades`` is one rubric for all problems, with a mark for each criterion: the process quality that PAPO compares
among right answers (arXiv 2603.26535).
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_prm.columns import problem_of
from rlhf_prm.judges.forms import UnparseableAnswer, without_thoughts
from rlhf_prm.step_data import read_all

WEIGHTS = {"SUGGEST": 0.8, "PITFALL": -1.0, "BONUS": 1.0}  # shared by the items of a kind, as in the authors' code
LOWEST, HIGHEST = -1.0, 1.8  # all pitfalls at one step; all suggestions and bonuses at one step
MARKS = (0.0, 0.5, 1.0)

RUBRIC_PROMPT = """Below are a mathematics problem, a solution cut into numbered steps, and a list of points.

[Problem]

{problem}

[Solution]

{steps}

[Points]

{items}

Say for every point whether the solution satisfies it. SUGGEST: satisfied if the solution takes this step and takes it \
correctly. PITFALL: satisfied if the solution makes this mistake. BONUS: satisfied if the solution goes this way. Name \
the step at which it happens: its number from 1, 0 if it is about the whole solution, -1 if there is none. Answer with \
a JSON list and nothing else, one entry per point:
[{"id": 1, "satisfied": true, "step": 2}, ...]"""

GRADES_PROMPT = """Below are a mathematics problem and a solution cut into numbered steps.

[Problem]

{problem}

[Solution]

{steps}

Mark the way the solution is reached, whatever its final answer, by each of these criteria: 1 = met throughout, 0.5 = \
met with small lapses, 0 = not met.

{items}

Answer with a JSON object and nothing else, one entry per criterion, such as {"1": 1, "2": 0.5}."""

CRITERIA = (
    "Every step follows from the problem and the steps before it.",
    "Every calculation is right.",
    "Everything given is used as it was given, and nothing is assumed that was not.",
    "Every step is needed; none only repeats or says nothing.",
)


@dataclass(frozen=True)
class RubricItem:
    """One point: ``kind`` is SUGGEST, PITFALL or BONUS."""

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in WEIGHTS or not self.text.strip():
            raise ValueError(
                f"rubric: got {self.kind!r} {self.text!r:.40}, expected SUGGEST, PITFALL or BONUS and a text"
            )


class RubricForm:
    """SRaR's question: which items of the problem's rubric does the solution satisfy, and at which steps?

    A step's delta d is the sum of its satisfied items' weights: .8, −1 and 1, each divided by the number of items of
    its kind. Its score is (d + 1) / 2.8 in [0, 1]; a step at which nothing is satisfied has NaN. An item about the
    whole solution counts at every step; one at no step (−1), or at a step that does not exist, counts nowhere.

    Args:
        rubrics: problem → its items; the key ``""`` is for problems that have none of their own.
    """

    def __init__(self, rubrics: Mapping[str, Sequence[RubricItem]]) -> None:
        self.rubrics = {problem.strip(): list(items) for problem, items in rubrics.items()}

    def items(self, problem: str) -> list[RubricItem]:
        """The items of a problem.

        Raises:
            ValueError: it has none.
        """
        found = self.rubrics.get(problem.strip()) or self.rubrics.get("")
        if not found:
            raise ValueError(
                f"rubric: none for the problem {problem[:60]!r}; expected a row for every problem, or one without a "
                "problem for all the others"
            )
        return found

    def messages(self, problem: str, steps: Sequence[str]) -> list[dict[str, str]]:
        """See ``Form``."""
        lines = [f"{number}. <{item.kind}> {item.text}" for number, item in enumerate(self.items(problem), 1)]
        return _message(RUBRIC_PROMPT, problem, steps, lines)

    def scores(self, problem: str, steps: Sequence[str], answer: str) -> list[float]:
        """See ``Form``."""
        items = self.items(problem)
        of_kind = Counter(item.kind for item in items)
        deltas: dict[int, float] = {}
        for number, step in sorted(_satisfied(answer, len(items))):
            item = items[number - 1]
            deltas[step] = deltas.get(step, 0.0) + WEIGHTS[item.kind] / of_kind[item.kind]
        whole = deltas.get(0)
        told = [_sum_of_told(deltas.get(k), whole) for k in range(1, len(steps) + 1)]
        return [math.nan if d is None else min(1.0, max(0.0, (d - LOWEST) / (HIGHEST - LOWEST))) for d in told]


class GradesForm:
    """One mark for the whole process: the mean over the criteria, given to every step.

    Args:
        criteria: the texts of the criteria.
    """

    def __init__(self, criteria: Sequence[str] = CRITERIA) -> None:
        if not criteria or not all(isinstance(one, str) and one.strip() for one in criteria):
            raise ValueError(f"criteria: got {criteria!r:.60}, expected at least one text")
        self.criteria = list(criteria)

    def messages(self, problem: str, steps: Sequence[str]) -> list[dict[str, str]]:
        """See ``Form``."""
        return _message(GRADES_PROMPT, problem, steps, [f"{n}. {text}" for n, text in enumerate(self.criteria, 1)])

    def scores(self, problem: str, steps: Sequence[str], answer: str) -> list[float]:
        """See ``Form``."""
        marks = _json(answer, "{", "}")
        wanted = {str(number) for number in range(1, len(self.criteria) + 1)}
        if not isinstance(marks, dict) or set(marks) != wanted:
            raise UnparseableAnswer(f"marks {str(marks)[:60]}, expected one for each criterion 1 to {len(wanted)}")
        for mark in marks.values():
            if isinstance(mark, bool) or mark not in MARKS:
                raise UnparseableAnswer(f"mark {mark!r:.20}, expected 0, 0.5 or 1")
        return [sum(map(float, marks.values())) / len(marks)] * len(steps)


def read_rubrics(path: str | Path) -> dict[str, list[RubricItem]]:
    """Rubrics of a .jsonl, .json or .parquet file: a problem (``problem``, ``prompt`` or ``question``; none = all
    others) and ``rubric``: a list of {"kind", "text"}, or text with a line "<KIND> …" per item.

    Raises:
        ValueError: a row cannot be read; the message names it.
    """
    rubrics: dict[str, list[RubricItem]] = {}
    for where, row in read_all(path):
        try:
            named = any(row.get(column) for column in ("problem", "prompt", "question"))
            rubrics[problem_of(row) if named else ""] = rubric_items(row.get("rubric"))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return rubrics


def rubric_items(given: Any) -> list[RubricItem]:
    """Items of a list of {"kind", "text"}, or of text with a line "<KIND> …" per item; ANSWER lines are left out.

    Raises:
        ValueError: it is neither, or has no item.
    """
    if isinstance(given, str):
        lines = [line.strip() for line in given.splitlines() if line.strip()]
        pairs = [line.removeprefix("<").split(">", 1) for line in lines if not line.startswith("<ANSWER>")]
        given = [{"kind": pair[0], "text": pair[-1].strip()} if len(pair) == 2 else pair for pair in pairs]
    if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
        raise ValueError(
            f"rubric: got {given!r:.60}, expected items with kind and text, or lines such as '<PITFALL> …'"
        )
    return [RubricItem(str(item.get("kind")), str(item.get("text") or "")) for item in given]


def _message(prompt: str, problem: str, steps: Sequence[str], items: Sequence[str]) -> list[dict[str, str]]:
    numbered = "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))
    parts = {"{problem}": problem, "{steps}": numbered, "{items}": "\n".join(items)}
    text, rest = "", prompt
    while rest:  # from left to right, so that a problem that contains "{steps}" stays as it is
        place, name = min(((rest.find(name), name) for name in parts if name in rest), default=(len(rest), ""))
        text, rest = text + rest[:place] + parts.get(name, ""), rest[place + len(name) :]
    return [{"role": "user", "content": text}]


def _sum_of_told(*deltas: float | None) -> float | None:
    told = [delta for delta in deltas if delta is not None]
    return sum(told) if told else None


def _satisfied(answer: str, num_items: int) -> set[tuple[int, int]]:
    """(item, step) of the satisfied items."""
    entries = _json(answer, "[", "]")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnparseableAnswer(f"got {str(entries)[:60]}, expected a list of objects")
    numbers = [entry.get("id") for entry in entries]
    if sorted(map(str, numbers)) != sorted(map(str, range(1, num_items + 1))):
        raise UnparseableAnswer(f"points {str(numbers)[:60]}, expected each of 1 to {num_items} once")
    for entry in entries:
        step = entry.get("step")
        if not isinstance(entry.get("satisfied"), bool) or isinstance(step, bool) or not isinstance(step, int):
            raise UnparseableAnswer(f"entry {str(entry)[:60]}, expected satisfied: true or false, and a step")
    return {(int(entry["id"]), entry["step"]) for entry in entries if entry["satisfied"]}


def _json(answer: str, opening: str, closing: str) -> Any:
    text = without_thoughts(answer)
    start, end = text.find(opening), text.rfind(closing)
    if start < 0 or end < start:
        raise UnparseableAnswer(f"no JSON in {text.strip()[:40]!r}")
    try:
        return json.loads(text[start : end + 1])
    except ValueError as error:
        raise UnparseableAnswer(f"JSON that cannot be read ({error})") from error
