"""Cuts text into reasoning steps, with token counts per step that are exact for any generated ids."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from rlhf_prm.merged_steps import RULES, Cut, merged
from rlhf_prm.thinking import Thinking
from rlhf_prm.token_text import TokenText, token_text

# Blocks that are not cut: code fences, display maths, LaTeX environments such as align. There are limits because
# a policy writes the text, and must not be able to hide steps by putting such marks around its sentences.
MAX_BLOCK = 2_000  # characters
MAX_BLANK_LINES = 3  # in a block
MAX_SEPARATORS = 12  # in a block, where a line break is the separator
_OPENING = re.compile(
    r"^[ \t]*(?P<fence>```)[ \t]*[\w+#.-]*[ \t]*$|(?<!\\)\$\$|(?<!\\)\\\[|\\begin\{(?P<environment>[a-zA-Z]+\*?)\}",
    re.MULTILINE,
)
_MARKS_OF_OPENINGS = ("```", "$$", "\\[", "\\begin{")  # an opening begins with one of these
_FENCE_LINE = re.compile(r"\n[ \t]*```+([^\n]*)")
_BRACKET = re.compile(r"(?<!\\)\\[\[\]]")
_BLANK_LINE = re.compile(r"\n[ \t]*(?=\n)")
_MARK = re.compile(r"\\(?:(?:begin|end)\{[^{}]*\}|[a-zA-Z]+|.?)|[$`]+")
_THREE_WORDS = re.compile(r"[^\W\d_]{2,}(?:[\W\d_]+[^\W\d_]{2,}){2}")
_SENTENCE_IN_CODE = re.compile(
    r"^\s*[A-Z][a-z]+[ ,:]"  # how a sentence begins
    r"|\w[)*]*[.!?。！？][)*]*[ \t]*$"  # how it ends
    r"|(?:(?!(?:and|as|class|def|else|for|from|if|import|in|is|not|or|return|while|with)\b)"  # four words in a row
    r"\b[^\W\d_]{2,}[,;:]?[ \t]*\b){4}",
    re.MULTILINE,
)


_MARK_OF_RESULTS = "Tool result:\n"


class ToolResult(str):
    """The text of a tool or an environment among the steps that a scorer reads: context, not a step of the policy.

    It reads ``Tool result:`` and the text, so that a scorer of plain texts can recognise it. Its score is
    ignored.
    """

    def __new__(cls, text: str) -> "ToolResult":
        return super().__new__(cls, f"{_MARK_OF_RESULTS}{text}")

    def __getnewargs__(self) -> tuple[str]:
        """The argument to rebuild it from when it is unpickled."""
        return (self.removeprefix(_MARK_OF_RESULTS),)


@dataclass(frozen=True)
class StepSplitter:
    """Cuts a solution into steps at a separator.

    A separator belongs to the step it ends. A blank step is merged into the one before it. A text without a separator,
    even an empty one, is one step.

    Nothing is cut inside a code fence or displayed maths that is closed and short (see :func:`_protected`), unless that
    would join two pieces that both contain sentences: delimiters that are left open, put around a whole solution, or
    spread over it do not reduce the number of steps. A separator that is not just white space ends a step everywhere.

    Args:
        separator: the literal text between steps; a blank line by default, as in arXiv 2501.07301.
        pattern: a regular expression that replaces ``separator``; what it matches ends a step.
        limit: the most steps; neighbouring ones are merged (:func:`rlhf_prm.merged_steps.merged`).
        merge: which ones are merged: "length" or "breaks", see there.
        thinking: a step ends where the thinking does. None: the tags are ordinary text.

    Raises:
        ValueError: an empty separator, a pattern that does not compile or that matches the empty text, a limit below 1
            (2 with ``thinking``), an unknown ``merge``.
    """

    separator: str = "\n\n"
    pattern: str | None = None
    limit: int | None = None
    merge: str = "length"
    thinking: Thinking | None = None

    def __post_init__(self) -> None:
        fewest = 1 if self.thinking is None else 2
        if self.limit is not None and self.limit < fewest:
            kinds = "" if self.thinking is None else ": thinking and answer are steps of their own"
            raise ValueError(f"step limit: got {self.limit}, expected {fewest} or more{kinds}")
        if self.merge not in RULES:
            raise ValueError(f"step merge: got {self.merge!r}, expected one of {', '.join(RULES)}")
        if self.pattern is None and not self.separator:
            raise ValueError("step separator: got an empty text, expected at least one character such as '\\n\\n'")
        try:
            empty_match = self._regex.search("")
        except re.error as error:
            raise ValueError(f"step pattern {self.pattern!r} is not a regular expression: {error}") from error
        if empty_match:
            raise ValueError(f"step pattern {self.pattern!r} matches the empty text, expected one that consumes text")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(self.pattern if self.pattern is not None else re.escape(self.separator))

    def occurs_in(self, text: str) -> bool:
        """Whether the separator occurs in ``text`` at all."""
        return self._regex.search(text) is not None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``(start, end)`` of the steps, separators included; they tile ``text``. Linear time."""
        return [(start, end) for start, _, end in self.cuts(text)]

    def split(self, text: str) -> list[str]:
        """The steps of ``text`` without their separators and outer white space; at least one."""
        return [text[start:content_end].strip() for start, content_end, _ in self.cuts(text)]

    def cuts(self, text: str) -> list[Cut]:
        """(start, end of the content, end of the separator) of every step, in characters."""
        wall = self.thinking.answer_from(text) if self.thinking else 0
        if 0 < wall < len(text):
            wall = len(text) - len(text[wall:].lstrip())  # the white space between the parts belongs to the first
            answer = self._cuts(text[wall:]) if wall < len(text) else []
            cuts = self._cuts(text[:wall]) + [
                (start + wall, content + wall, end + wall) for start, content, end in answer
            ]
        else:
            cuts = self._cuts(text)
        return cuts if self.limit is None else merged(cuts, text, self.limit, self.merge, wall)

    def _cuts(self, text: str) -> list[Cut]:
        separators = list(self._regex.finditer(text))
        protected = _protected([match.span() for match in separators], text)
        cuts: list[Cut] = []
        start = 0
        for number, match in enumerate(separators):
            if number in protected and match[0].isspace():
                continue
            if text[start : match.start()].strip():
                cuts.append((start, match.start(), match.end()))
                start = match.end()
            elif cuts:  # a blank step: the separator belongs to the step before
                cuts[-1] = (*cuts[-1][:2], match.end())
                start = match.end()
        if start < len(text) or not cuts:
            if cuts and not text[start:].strip():
                cuts[-1] = (*cuts[-1][:2], len(text))
            else:
                cuts.append((start, len(text), len(text)))
        return cuts


def _protected(separators: list[tuple[int, int]], text: str) -> set[int]:
    """Numbers of the separators that end no step because they are in a code fence or displayed maths. Linear time.

    Such a block is closed and has no other of its kind inside; it is not the whole text; it is short (``MAX_BLOCK``,
    ``MAX_BLANK_LINES``, ``MAX_SEPARATORS``); and at most one of the pieces that it joins contains sentences, where
    those in which it begins and ends are taken whole. So a stray ``$$`` before the opening of the next formula, or a
    fence around a solution, is not a block, and the search for the next one begins right after it.
    """
    protected: set[int] = set()
    marks = _marks(text) if separators else []
    if not marks:
        return protected
    begins = [begin for begin, _ in separators]
    pieces = list(zip([0, *(end for _, end in separators)], [*begins, len(text)], strict=True))
    talks = cache(lambda number, test: test(text[slice(*pieces[number])]))
    margins = len(text) - len(text.lstrip()), len(text.rstrip())
    position = 0
    joined, joined_talks = 0, False  # the last piece that is joined to others, and whether any of these talks
    while opening := _opening(text, position, marks):
        position = opening.end()
        closing = _closing(text, opening)
        if closing is None:
            continue
        first, last = bisect_left(begins, opening.start()), bisect_left(begins, closing[1])
        if first < last:
            test = _talks_in_code if opening["fence"] else _talks
            talking = (
                sum(talks(number, test) for number in range(first, last + 1)) if last - first <= MAX_SEPARATORS else 2
            )
            talking += joined == first and joined_talks and not talks(first, test)
            whole = opening.start() <= margins[0] and closing[1] >= margins[1]
            if whole or talking > 1 or len(_BLANK_LINE.findall(text, position, closing[0])) > MAX_BLANK_LINES:
                continue
            protected.update(range(first, last))
            joined, joined_talks = last, talking > 0
        position = closing[1]
    return protected


def _marks(text: str) -> list[int]:
    """Where an opening may begin, in order."""
    found = []
    for mark in _MARKS_OF_OPENINGS:
        at = text.find(mark) if mark[0] in text else -1  # one character is found many times faster than two
        while at >= 0:
            found.append(at)
            at = text.find(mark, at + 1)
    return sorted(found)


def _opening(text: str, position: int, marks: list[int]) -> re.Match[str] | None:
    """The first match of ``_OPENING`` from ``position`` on: a search for it would look at every character."""
    for number in range(bisect_left(marks, position), len(marks)):
        begin = marks[number]
        if text[begin] == "`":  # a fence stands alone on its line
            while begin > position and text[begin - 1] in " \t":
                begin -= 1
        if opening := _OPENING.match(text, begin):
            return opening
    return None


def _talks(piece: str) -> bool:
    """Whether ``piece`` has words, and not just a formula."""
    return _THREE_WORDS.search(_MARK.sub(" ", piece)) is not None


def _talks_in_code(piece: str) -> bool:
    """As :func:`_talks`, for a piece that may be code, which has many words: it must have a sentence."""
    return _SENTENCE_IN_CODE.search(_MARK.sub(" ", piece)) is not None


def _closing(text: str, opening: re.Match[str]) -> tuple[int, int] | None:
    """Span of the mark that closes ``opening``; None if there is none, if it is too far, or if another opens before."""
    start, limit = opening.end(), opening.end() + MAX_BLOCK
    if opening["fence"]:
        line = _FENCE_LINE.search(text, start, limit)
        return line.span() if line and not line[1].strip() else None
    if opening["environment"]:
        name = f"{{{opening['environment']}}}"
        at = text.find("\\end" + name, start, limit)
        return (at, at + len("\\end" + name)) if at >= 0 and text.find("\\begin" + name, start, at) < 0 else None
    if opening[0] == "$$":
        at = text.find("$$", start, limit)
        return (at, at + 2) if at >= 0 else None
    bracket = _BRACKET.search(text, start, limit)
    return bracket.span() if bracket and bracket[0] == "\\]" else None


def step_lengths(token_ids: Sequence[int], tokenizer: Any, splitter: StepSplitter) -> tuple[list[str], list[int]]:
    """The steps of a generated completion and how many of its tokens each one has.

    Steps are cut in the decoded text without special tokens. A step ends with the token that completes its separator,
    whatever else that token holds, so separators merged into a neighbour (``.\\n\\n``), characters split over several
    tokens, special tokens and an end in mid-step are each counted once. Steps that share one token are merged,
    with the text that stands between them.

    Args:
        token_ids: one completion, (T,), as sampled: special tokens are allowed anywhere, padding is not.
        tokenizer: the policy's Transformers tokenizer.

    Returns:
        ``(texts, lengths)``, equally long, at least one step; ``lengths`` sum to T.
    """
    return steps_of(token_text(token_ids, tokenizer), splitter)


def steps_of(written: TokenText, splitter: StepSplitter) -> tuple[list[str], list[int]]:
    """As :func:`step_lengths`, of a completion whose text is known already."""
    text, total = written.text, written.num_tokens
    cuts = splitter.cuts(text)
    contents: list[tuple[int, int]] = []  # spans of the text
    lengths: list[int] = []
    begin = used = 0  # the first character of the present step; tokens that earlier steps have
    for (_, content_end, end), stop in zip(cuts, written.tokens_until([end for *_, end in cuts]), strict=True):
        if stop > used:
            contents.append((begin, content_end))
            lengths.append(stop - used)
            begin, used = end, stop
        elif end == len(text) and contents:  # the last step ends in a token that an earlier step already has
            contents[-1] = (contents[-1][0], content_end)
    if not contents:
        return [text.strip()], [total]
    lengths[-1] += total - used  # special tokens and undecodable bytes at the end
    return [text[start:stop].strip() for start, stop in contents], lengths


def tokens_until(token_ids: Sequence[int], tokenizer: Any, characters: Sequence[int]) -> list[int]:
    """For each number of characters of the decoded text, without special tokens: how many tokens complete them.

    Args:
        token_ids: (T,), as for :func:`step_lengths`.
    """
    return token_text(token_ids, tokenizer).tokens_until(characters)
