"""Finds the final answer in a completion and the gold answer in a solution, in time linear in any text."""

import re
from dataclasses import dataclass

MAX_TEXT = 65_536  # characters of a completion that are looked at, counted from its end
MAX_ANSWER = 4_096  # characters of an answer; a longer one is not an answer
MAX_BARE_GOLD = 400  # a solution longer than this must mark its answer
OUTER_BOXES = 8  # how many boxes before the last one are checked for enclosing it

BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
ANCHOR = re.compile(r"(?:final\s+answer|answer|result|(?m:^)A)\s{0,4}(?:is|are|=|:)\s{0,4}:?", re.IGNORECASE)
THOUGHT = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!](?=\s|$)|\n")


@dataclass(frozen=True)
class Extracted:
    """``text`` is the answer, or None if there is none; ``cut`` says that only the end of a long text was read."""

    text: str | None
    cut: bool = False


def closing_brace(text: str, start: int, stop: int) -> int:
    """Index of the brace that closes the one at ``start``, or -1 if there is none before ``stop``."""
    depth = 0
    index = start
    while index < stop:
        character = text[index]
        if character == "\\":
            index += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    return -1


def box_content(text: str, start: int) -> tuple[str, int] | None:
    """Content and end of the box whose macro ends at ``start``; None if it is never closed or too long."""
    while start < len(text) and text[start] in " \t\n":
        start += 1
    if start < len(text) and text[start] == "{":
        end = closing_brace(text, start, min(len(text), start + MAX_ANSWER))
        return None if end < 0 else (text[start + 1 : end], end)
    bare = re.compile(r"\\[a-zA-Z]+|[^\s$\\{}]").match(text, start)  # \boxed 5
    return (bare.group(), bare.end() - 1) if bare else None


def last_boxed(text: str) -> tuple[bool, str | None]:
    r"""Whether there is a ``\boxed``, and the content of the last (outermost) one: None if it is never closed."""
    starts: list[int] = []
    position = len(text)
    while len(starts) <= OUTER_BOXES:
        position = max(text.rfind("\\boxed", 0, position), text.rfind("\\fbox", 0, position))
        if position < 0:
            break
        match = BOX.match(text, position)
        if match:
            starts.append(match.end())
    if not starts:
        return False, None
    found = box_content(text, starts[0])
    if found is None:
        return True, None
    content, end = found
    for start in starts[1:]:
        outer = box_content(text, start)
        if outer is not None and outer[1] > end:
            content, end = outer
    return True, content


def stated_answer(text: str) -> str | None:
    """The answer after ``####`` or after the last "the answer is", up to the end of its sentence."""
    mark = text.rfind("####")
    if mark >= 0:
        return text[mark + 4 :].strip().split("\n", 1)[0].strip() or None
    last = None
    for last in ANCHOR.finditer(text):  # noqa: B007  the last one is wanted
        pass
    if last is None:
        return None
    rest = text[last.end() : last.end() + MAX_ANSWER].strip()
    if rest.startswith(("$$", "\\[")):
        rest = rest[2:].replace("$$", "\n").replace("\\]", "\n").strip()
    end = SENTENCE_END.search(rest)
    return (rest[: end.start()] if end else rest).strip().strip("*").strip() or None


def after_thought(completion: str, in_thought: bool = False) -> str:
    """The text after the last ``</think>``, "" if a ``<think>`` follows it. Without tags: all, or "" in a thought."""
    last = None
    for last in THOUGHT.finditer(completion):  # noqa: B007  the last one is wanted
        pass
    if last is None:
        return "" if in_thought else completion
    return completion[last.end() :] if last[1] else ""


def final_answer(completion: str, in_thought: bool = False) -> Extracted:
    r"""The content of the last ``\boxed``; without any box, what follows ``####`` or "the answer is".

    If the last box is never closed, there is no answer, even if an earlier box is complete. Text before the last
    ``</think>`` is not searched, nor is a completion that ends in an unfinished ``<think>``. ``in_thought`` says that
    the prompt ends in ``<think>``, so that a completion without ``</think>`` is one unfinished thought.
    """
    said = after_thought(completion, in_thought)
    text = said[-MAX_TEXT:]
    boxed, answer = last_boxed(text)
    if not boxed:
        answer = stated_answer(text)
    return Extracted(answer if answer and answer.strip() else None, len(text) < len(said))


def gold_answer(solution: str | None) -> str | None:
    r"""The answer in a bare, ``$…$``, ``\boxed{…}`` or ``#### …`` solution, or in a text that marks it; else None."""
    if not solution or not solution.strip():
        return None
    boxed, answer = last_boxed(solution)
    if not boxed:
        bare = solution.strip()
        answer = stated_answer(bare) if "####" in bare or "\n" in bare or len(bare) > MAX_BARE_GOLD else bare
        if answer is None and len(bare) <= MAX_BARE_GOLD:
            answer = bare
    return answer if answer and any(character.isalnum() or character in "∞∅" for character in answer) else None
