"""Converts other projects' step labels to a problem, its steps and one value per step: pure functions of a record.

A value is 1 or 0 for a verdict, and a number in [0, 1] where a data set has one. ``rlhf_prm.step_data`` makes stepwise
rows of them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Parsed = tuple[str, list[str], list[float]]

MATH_SHEPHERD_TAG = "ки"
MATH_APS_TAG = "\n\n\n\n\n"
_STEP_1 = re.compile(r"(?m)(?:^|(?<=\s))Step 1\s*:")
_JUDGEMENT = re.compile(r"\\boxed\{\s*(Yes|No)\s*\}", re.IGNORECASE)


def trl_stepwise(record: Mapping[str, Any]) -> Parsed:
    """TRL's stepwise type: ``prompt`` (a text or messages), ``completions`` (the steps), ``labels`` (bools)."""
    steps, labels = record["completions"], record["labels"]
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels):
        raise ValueError("completions and labels: expected two lists, one label for each step")
    if bad := [label for label in labels if not isinstance(label, bool | int) or label not in (0, 1)]:
        raise ValueError(f"labels: got {bad[0]!r}, expected true or false for each step")
    return _text_of_prompt(record["prompt"]), [_text(step) for step in steps], [float(label) for label in labels]


def openrlhf(record: Mapping[str, Any]) -> Parsed:
    """OpenRLHF's PRM data: ``input`` with "ки" after each step, ``value`` with "+" or "-", or a number, for each."""
    pieces = record["input"].split(MATH_SHEPHERD_TAG)
    if pieces[-1].strip():
        raise ValueError(f"input: the text behind the last {MATH_SHEPHERD_TAG!r} has no label: {pieces[-1][:60]!r}")
    values = [_value(value) for value in record["value"]]
    if len(values) != len(pieces) - 1:
        raise ValueError(f"got {len(values)} values for {len(pieces) - 1} steps that end in {MATH_SHEPHERD_TAG!r}")
    problem, first = _before_step_1(pieces[0])
    return problem, [step.strip() for step in [first, *pieces[1:-1]]], values


def rlhflow(record: Mapping[str, Any]) -> Parsed:
    """RLHFlow's Monte-Carlo data: ``conversations`` in which the user writes a step and the assistant "+" or "-".

    The first turn holds the problem and the first step. They are separated before "Step 1:" or, if it is missing, at
    the last blank line. If there is neither, the whole turn is the problem, and its label refers to no
    step: it is left out if it is "+".

    Raises:
        ValueError: a turn is of another kind, or no labelled step is left.
    """
    users, answers = _turns(record["conversations"])
    values = [_value(answer.strip()) for answer in answers]
    opening = users[0]
    if _STEP_1.search(opening):
        problem, first = _before_step_1(opening)
    else:
        problem, parted, first = opening.strip().rpartition("\n\n")
        if not parted:
            if values[0] == 0.0 or len(users) == 1:
                raise ValueError(
                    f"the problem and the first step cannot be told apart in {opening[:60]!r}, and a label is lost"
                )
            return opening.strip(), [step.strip() for step in users[1:]], values[1:]
    return problem.strip(), [step.strip() for step in [first, *users[1:]]], values


def genprm(record: Mapping[str, Any]) -> Parsed:
    """GenPRM's data: ``conversations`` of a system turn, then a user's paragraph and a critique of it that ends with
    \\boxed{Yes} or \\boxed{No}; the first paragraph stands behind "Question: …" and a blank line.

    The critiques themselves are left out: they train generative PRMs.
    """
    users, critiques = _turns(record["conversations"])
    values = []
    for critique in critiques:
        found = _JUDGEMENT.findall(critique)
        if not found:
            raise ValueError(f"no \\boxed{{Yes}} or \\boxed{{No}} at the end of the critique {critique[-60:]!r}")
        values.append(float(found[-1].lower() == "yes"))
    problem, parted, first = users[0].strip().rpartition("\n\n")
    if not parted:
        raise ValueError(f"no blank line between the question and the first paragraph in {users[0][:60]!r}")
    problem = problem.strip().removeprefix("Question:").strip()
    return problem, [step.strip() for step in [first, *users[1:]]], values


def flat_math_aps(record: Mapping[str, Any]) -> Parsed:
    """MATH-APS as published in one table: ``question``, ``process``, and ``label`` with "+" or "-".

    Steps end with five line breaks. Where there is one label for a process of several paragraphs it is about all of
    them, which are then one step.
    """
    values = [_value(value) for value in record["label"]]
    steps = [step.strip() for step in record["process"].split(MATH_APS_TAG) if step.strip()]
    if len(values) == 1 and len(steps) > 1:
        steps = [record["process"].strip()]
    if len(values) != len(steps):
        raise ValueError(f"got {len(values)} labels for a process of {len(steps)} steps")
    return record["question"].strip(), steps, values


def is_rlhflow(record: Mapping[str, Any]) -> bool:
    """Whether a record with ``conversations`` is RLHFlow's: its assistant writes signs only."""
    try:
        return all(answer.strip() in ("+", "-") for answer in _turns(record["conversations"])[1])
    except (
        ValueError,
        AttributeError,
        TypeError,
    ):  # a malformed conversation is of no format; the reader reports it
        return False


def _turns(conversation: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """The user's and the assistant's texts, in turns; ``role``/``content`` and ``from``/``value`` are both read."""
    turns = [(turn.get("role") or turn.get("from"), turn.get("content") or turn.get("value")) for turn in conversation]
    turns = [(role, text) for role, text in turns if role != "system"]
    users, answers = turns[::2], turns[1::2]
    right = {role for role, _ in users} <= {"user", "human"} and {role for role, _ in answers} <= {"assistant", "gpt"}
    if not right or not users or len(users) != len(answers) or not all(isinstance(text, str) for _, text in turns):
        raise ValueError("conversations: expected turns of user and assistant, one after the other")
    return [text for _, text in users], [text for _, text in answers]


def _before_step_1(text: str) -> tuple[str, str]:
    """The problem, and the first step from "Step 1:" on."""
    matches = list(_STEP_1.finditer(text))
    if not matches:
        raise ValueError(f"the problem and the first step cannot be told apart: no 'Step 1:' in {text[:60]!r}")
    start = matches[-1].start()
    return text[:start].strip(), text[start:].strip()


def _value(value: Any) -> float:
    if value in ("+", "-"):
        return float(value == "+")
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"step value: got {value!r:.40}, expected +, -, or a number from 0 to 1")


def _text_of_prompt(prompt: Any) -> str:
    if isinstance(prompt, list):
        prompt = next((turn.get("content") for turn in reversed(prompt) if turn.get("role") == "user"), None)
    return _text(prompt)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"got {value!r:.40}, expected a text")
    return value
