"""Names of columns: one rule for every command and every file of problems, solutions or samples.

A column that is named (``--problem-column``, ``--solution-column``, ``columns`` of a recipe) is used; it is an error
if it is missing. Otherwise the first of the names below that the row has is used.
"""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rlhf_prm.steps import StepSplitter

PROBLEM_COLUMNS = ("problem", "prompt", "question")
SOLUTION_COLUMNS = ("solution", "answer")  # the gold answer
STEPS_COLUMNS = ("steps", "completions")  # one solution, a list of its steps
RESPONSE_COLUMNS = ("response", "completion")  # one solution, as one text
SAMPLES_COLUMNS = ("completions", "responses")  # several solutions, each one text


def column_of(available: Collection[str], named: str | None, usual: Sequence[str], what: str) -> str:
    """The name of the column that holds ``what``.

    Raises:
        ValueError: the named column, or every usual one, is not among the available.
    """
    for name in (named,) if named else usual:
        if name in available:
            return name
    wanted = repr(named) if named else " or ".join(usual)
    raise ValueError(f"no column {wanted} for the {what}; there are {', '.join(sorted(map(str, available))) or 'none'}")


def value_of(record: Mapping[str, Any], named: str | None, usual: Sequence[str]) -> Any:
    """The record's value in the named column, or in the first usual one that exists and is not null; else None."""
    return next((record[name] for name in ((named,) if named else usual) if record.get(name) is not None), None)


def problem_of(record: Mapping[str, Any], named: str | None = None) -> str:
    """The problem's text; of chat messages, the last one of the user.

    Raises:
        ValueError: it is missing, blank, or neither.
    """
    problem = value_of(record, named, PROBLEM_COLUMNS)
    if isinstance(problem, list) and problem and all(isinstance(turn, dict) for turn in problem):
        problem = next((turn.get("content") for turn in reversed(problem) if turn.get("role") == "user"), None)
    if isinstance(problem, str) and problem.strip():
        return problem
    wanted = repr(named) if named else " or ".join(PROBLEM_COLUMNS)
    got = "nothing" if problem is None else f"{problem!r:.60}"
    raise ValueError(
        f"no problem: got {got}, expected a text in the column {wanted} (--problem-column names another); the row has "
        f"{', '.join(sorted(map(str, record))) or 'no columns'}"
    )


def steps_of(
    record: Mapping[str, Any], splitter: StepSplitter, text_columns: Sequence[str] = RESPONSE_COLUMNS
) -> list[str]:
    """The steps of one solution: a list of them, or a text that is cut; a blank text has none.

    Raises:
        ValueError: there are none, or ``completions`` seems to hold several solutions: texts that would be cut, and
            no ``labels`` beside them, which stepwise rows have.
    """
    for column in STEPS_COLUMNS:
        steps = record.get(column)
        if isinstance(steps, list) and all(isinstance(step, str) for step in steps):
            ambiguous = column == "completions" and record.get("labels") is None
            whole = [step for step in steps if len(splitter.split(step)) > 1] if ambiguous else []
            if whole:
                raise ValueError(
                    f"completions: {len(whole)} of {len(steps)} texts have several steps, to begin with "
                    f"{whole[0]!r:.60}; expected the steps of one solution: several solutions need a row each, and "
                    "steps that hold the separator the column steps"
                )
            return steps
    text = value_of(record, None, text_columns)
    if isinstance(text, str):
        return splitter.split(text) if text.strip() else []
    raise ValueError(
        f"no steps: the row has {', '.join(sorted(map(str, record)))}; expected one of {', '.join(STEPS_COLUMNS)} (a "
        f"list of texts) or {', '.join(text_columns)} (a text)"
    )


def text_of_steps(record: Mapping[str, Any], text_columns: Sequence[str] = RESPONSE_COLUMNS) -> str | None:
    """The text that ``steps_of`` cuts; None where the row has a list of steps."""
    lists = [record[column] for column in STEPS_COLUMNS if isinstance(record.get(column), list)]
    text = value_of(record, None, text_columns)
    listed = any(all(isinstance(step, str) for step in steps) for steps in lists)
    return text if isinstance(text, str) and not listed else None


def gold_of(record: Mapping[str, Any], named: str | None = None) -> str | None:
    """The gold answer as text; None if there is none (null, blank, or NaN in a column of numbers).

    Raises:
        ValueError: the value is neither text nor a number, for example a list of answers.
    """
    gold = value_of(record, named, SOLUTION_COLUMNS)
    if gold is None or gold != gold:
        return None
    if isinstance(gold, float) and gold.is_integer():  # 72.0 in a column of numbers with gaps
        gold = int(gold)
    if not isinstance(gold, str | int | float | Decimal):
        raise ValueError(f"gold answer: got {gold!r:.60}, expected a text or a number")
    return str(gold) if str(gold).strip() else None
