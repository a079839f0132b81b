"""From text to reasoning steps, and from steps to token counts that are exact for any generated ids."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any

# Blocks whose inside is not cut: code fences, display maths, LaTeX environments such as align. There are limits because
# a policy writes the text: whatever it puts around its sentences, they must stay steps.
MAX_BLOCK = 2_000  # characters
MAX_BLANK_LINES = 3  # in a block
MAX_SEPARATORS = 12  # in a block, where a line break is the separator
_OPENING = re.compile(
    r"^[ \t]*(?P<fence>```)[ \t]*[\w+#.-]*[ \t]*$|(?<!\\)\$\$|(?<!\\)\\\[|\\begin\{(?P<environment>[a-zA-Z]+\*?)\}",
    re.MULTILINE,
)
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
    """What a tool or an environment wrote, among the steps that a scorer reads: context, and no step of the policy.

    It reads ``Tool result:`` and the text, so that a scorer of plain texts can tell; whatever score it is given, nobody
    looks at it.
    """

    def __new__(cls, text: str) -> "ToolResult":
        return super().__new__(cls, f"{_MARK_OF_RESULTS}{text}")

    def __getnewargs__(self) -> tuple[str]:
        """What it is made of again, in another process say."""
        return (self.removeprefix(_MARK_OF_RESULTS),)


@dataclass(frozen=True)
class StepSplitter:
    """Cuts a solution into steps at a separator.

    A separator belongs to the step it ends. A blank step is merged into the one before it. A text without a separator
    is one step, the empty text too.

    Nothing is cut inside a code fence or displayed maths that is closed and short (see :func:`_protected`), unless that
    would join two pieces that both talk: delimiters that are left open, or put around a whole solution, or strewn over
    it, do not make steps fewer. A separator that is a mark, not just white space, ends a step everywhere.

    Args:
        separator: the literal text between steps; a blank line by default, as in arXiv 2501.07301.
        pattern: a regular expression that replaces ``separator``; what it matches ends a step.

    Raises:
        ValueError: an empty separator, a pattern that does not compile or that matches the empty text.
    """

    separator: str = "\n\n"
    pattern: str | None = None

    def __post_init__(self) -> None:
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

    def cuts(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end of the content, end of the separator) of every step, in characters."""
        separators = list(self._regex.finditer(text))
        protected = _protected([match.span() for match in separators], text)
        cuts: list[tuple[int, int, int]] = []
        start = 0
        for number, match in enumerate(separators):
            if number in protected and match[0].isspace():
                continue
            if text[start : match.start()].strip():
                cuts.append((start, match.start(), match.end()))
                start = match.end()
            elif cuts:  # blank: the separator joins the step before
                cuts[-1] = (*cuts[-1][:2], match.end())
                start = match.end()
        if start < len(text) or not cuts:
            if cuts and not text[start:].strip():
                cuts[-1] = (*cuts[-1][:2], len(text))
            else:
                cuts.append((start, len(text), len(text)))
        return cuts


def _protected(separators: list[tuple[int, int]], text: str) -> set[int]:
    """Numbers of the separators that end no step, as they lie in a code fence or displayed maths. Linear time.

    Such a block is closed and has no other of its kind inside; it is not the whole text; it is short (``MAX_BLOCK``,
    ``MAX_BLANK_LINES``, ``MAX_SEPARATORS``); and at most one of the pieces that it joins talks, those in which it
    begins and ends taken whole. So a stray ``$$`` that meets the opening of the next formula, or a fence around a
    solution, is no block, and the search for the next one begins right behind it.
    """
    protected: set[int] = set()
    if not separators:
        return protected
    begins = [begin for begin, _ in separators]
    pieces = list(zip([0, *(end for _, end in separators)], [*begins, len(text)], strict=True))
    talks = cache(lambda number, test: test(text[slice(*pieces[number])]))
    margins = len(text) - len(text.lstrip()), len(text.rstrip())
    position = 0
    joined, joined_talks = 0, False  # the last piece that is joined to others, and whether any of these talks
    while opening := _OPENING.search(text, position):
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


def _talks(piece: str) -> bool:
    """Whether there are words in ``piece``, and not just a formula."""
    return _THREE_WORDS.search(_MARK.sub(" ", piece)) is not None


def _talks_in_code(piece: str) -> bool:
    """As :func:`_talks` for a piece that may be code, which is full of words: it looks for a sentence."""
    return _SENTENCE_IN_CODE.search(_MARK.sub(" ", piece)) is not None


def _closing(text: str, opening: re.Match[str]) -> tuple[int, int] | None:
    """Span of what closes ``opening``; None if nothing does, or too far away, or another of its kind opens before."""
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
    ids = [int(token) for token in token_ids]
    text, ends = _character_ends(ids, tokenizer)
    characters = [0, *ends]  # complete after so many tokens
    contents: list[tuple[int, int]] = []  # spans of the text
    lengths: list[int] = []
    begin = used = stop = 0  # the step being read begins at this character; tokens given away; tokens read
    for _, content_end, end in splitter.cuts(text):
        while stop < len(ids) and characters[stop] < end:
            stop += 1
        if stop > used:
            contents.append((begin, content_end))
            lengths.append(stop - used)
            begin, used = end, stop
        elif end == len(text) and contents:  # the last step ends in a token that is already given away
            contents[-1] = (contents[-1][0], content_end)
    if not contents:
        return [text.strip()], [len(ids)]
    lengths[-1] += len(ids) - used  # special tokens and undecodable bytes at the end
    return [text[start:stop].strip() for start, stop in contents], lengths


def tokens_until(token_ids: Sequence[int], tokenizer: Any, characters: Sequence[int]) -> list[int]:
    """For each number of characters of the decoded text, without special tokens: how many tokens complete them.

    Args:
        token_ids: (T,), as for :func:`step_lengths`.
    """
    ids = [int(token) for token in token_ids]
    _, ends = _character_ends(ids, tokenizer)
    return [min(bisect_left(ends, wanted) + 1, len(ids)) if wanted else 0 for wanted in characters]


def _character_ends(ids: list[int], tokenizer: Any) -> tuple[str, list[int]]:
    """The decoded text, and for every token how many characters of it are complete after that token.

    The text of a token is looked up; only where tokens are parts of characters is the tokenizer asked for each of them.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    piece = _piece_lookup(tokenizer)
    pieces = [piece(token) for token in ids]
    lengths, parts = [len(piece) for piece in pieces], pieces
    if any("\ufffd" in piece for piece in pieces):
        parts = pieces[:]
        for start, end in _runs_of_parts(pieces):
            parts[start:end] = [tokenizer.decode(ids[start:end], skip_special_tokens=True)] + [""] * (end - start - 1)
            ends = _incremental_ends(ids[start:end], tokenizer, len(parts[start]))
            lengths[start:end] = [after - before for before, after in pairwise([0, *ends])]
    joined = "".join(parts)
    # A sentencepiece decoder drops the blank before the first word.
    offset = 1 if joined != text and joined[1:] == text and joined.startswith(" ") else 0
    if offset or joined == text:
        return text, [max(0, total - offset) for total in accumulate(lengths)]
    return text, _incremental_ends(ids, tokenizer, len(text))


def _runs_of_parts(pieces: list[str]) -> list[tuple[int, int]]:
    """Spans of neighbouring tokens that are parts of characters, with the special tokens between them."""
    runs: list[tuple[int, int]] = []
    for index, piece in enumerate(pieces):
        if "\ufffd" in piece:
            joins = runs and not any(pieces[runs[-1][1] : index])
            start = runs.pop()[0] if joins else index
            runs.append((start, index + 1))
    return runs


def _incremental_ends(ids: list[int], tokenizer: Any, total: int) -> list[int]:
    """Character ends by decoding a sliding window: right where tokens are parts of characters. Linear time."""

    def decoded(start: int, end: int) -> str:
        return str(tokenizer.decode(ids[start:end], skip_special_tokens=True))

    ends: list[int] = []
    window, complete, characters = 0, 0, 0
    known = ""  # the text of ids[window:complete]
    for index in range(len(ids)):
        longer = decoded(window, index + 1)
        unfinished = longer.endswith("\ufffd") and index + 1 - complete < 8  # the bytes of one character
        if not unfinished and len(longer) > len(known):
            characters += len(longer) - len(known)
            window, complete = complete, index + 1
            known = decoded(window, complete)
        ends.append(min(characters, total))
    return ends


@lru_cache(maxsize=8)
def _piece_lookup(tokenizer: Any) -> Callable[[int], str]:
    """token id → the text it adds in mid-sentence, remembered per tokenizer."""
    special = set(tokenizer.all_special_ids)
    anchor = next(iter(tokenizer("a", add_special_tokens=False)["input_ids"]), None)
    prefix = [] if anchor is None or anchor in special else [anchor]
    skip = len(tokenizer.decode(prefix)) if prefix else 0

    @cache
    def piece(token: int) -> str:
        return "" if token in special else str(tokenizer.decode([*prefix, token]))[skip:]

    return piece
