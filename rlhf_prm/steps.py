"""From text to reasoning steps, and from steps to token counts that are exact for any generated ids."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate, pairwise

# Delimiters whose inside is never cut: code fences, display maths, LaTeX environments such as align.
_OPENING = re.compile(r"```|\$\$|(?<!\\)\\\[|\\begin\{([a-zA-Z]+\*?)\}")


@dataclass(frozen=True)
class StepSplitter:
    """Cuts a solution into steps at a separator.

    A separator belongs to the step it ends. A blank step is merged into the one before it. Nothing is cut inside a
    closed code fence or closed display maths. A text without a separator is one step, the empty text too.

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
        return [(start, end) for start, _, end in self._cuts(text)]

    def split(self, text: str) -> list[str]:
        """The steps of ``text`` without their separators and outer white space; at least one."""
        return [text[start:content_end].strip() for start, content_end, _ in self._cuts(text)]

    def _cuts(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end of the content, end of the separator) of every step."""
        protected = iter(_protected_spans(text))
        inside = next(protected, None)
        cuts: list[tuple[int, int, int]] = []
        start = 0
        for match in self._regex.finditer(text):
            while inside is not None and inside[1] <= match.start():
                inside = next(protected, None)
            if inside is not None and inside[0] <= match.start():
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


def _protected_spans(text: str) -> list[tuple[int, int]]:
    """Spans of closed fences, display maths and environments; an opening that is never closed protects nothing."""
    spans = []
    last_closing: dict[str, int] = {}
    position = 0
    while opening := _OPENING.search(text, position):
        closing = {"```": "```", "$$": "$$", "\\[": "\\]"}.get(opening[0]) or f"\\end{{{opening[1]}}}"
        if closing not in last_closing:
            last_closing[closing] = text.rfind(closing)
        position = opening.end()
        if last_closing[closing] >= position:  # else every later search for it would run to the end of the text
            end = text.find(closing, position) + len(closing)
            spans.append((opening.start(), end))
            position = end
    return spans


def step_lengths(token_ids: Sequence[int], tokenizer, splitter: StepSplitter) -> tuple[list[str], list[int]]:
    """The steps of a generated completion and how many of its tokens each one has.

    Steps are cut in the decoded text without special tokens. A step ends with the token that completes its separator,
    whatever else that token holds, so separators merged into a neighbour (``.\\n\\n``), characters split over several
    tokens, special tokens and an end in mid-step are each counted once. Steps that share one token are merged.

    Args:
        token_ids: one completion, (T,), as sampled: special tokens are allowed anywhere, padding is not.
        tokenizer: the policy's Transformers tokenizer.

    Returns:
        ``(texts, lengths)``, equally long, at least one step; ``lengths`` sum to T.
    """
    ids = [int(token) for token in token_ids]
    text, ends = _character_ends(ids, tokenizer)
    characters = [0, *ends]  # complete after so many tokens
    texts: list[str] = []
    lengths: list[int] = []
    shared: list[str] = []  # steps whose end lies in a token that is already given away
    used = stop = 0
    for step, (_, end) in zip(splitter.split(text), splitter.spans(text), strict=True):
        while stop < len(ids) and characters[stop] < end:
            stop += 1
        shared.append(step)
        if stop > used:
            texts.append(splitter.separator.join(shared))
            lengths.append(stop - used)
            used, shared = stop, []
    if not texts:
        return [splitter.separator.join(shared)], [len(ids)]
    texts[-1] = splitter.separator.join([texts[-1], *shared])
    lengths[-1] += len(ids) - used  # special tokens and undecodable bytes at the end
    return texts, lengths


def _character_ends(ids: list[int], tokenizer) -> tuple[str, list[int]]:
    """The decoded text, and for every token how many characters of it are complete after that token.

    The text of a token is looked up; only where tokens are parts of characters is the tokenizer asked for each of them.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    piece = _piece_lookup(tokenizer)
    pieces = [piece(token) for token in ids]
    lengths, joined = [len(piece) for piece in pieces], pieces
    if any("\ufffd" in piece for piece in pieces):
        joined = pieces[:]
        for start, end in _runs_of_parts(pieces):
            joined[start:end] = [tokenizer.decode(ids[start:end], skip_special_tokens=True)] + [""] * (end - start - 1)
            ends = _incremental_ends(ids[start:end], tokenizer, len(joined[start]))
            lengths[start:end] = [after - before for before, after in pairwise([0, *ends])]
    joined = "".join(joined)
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


def _incremental_ends(ids: list[int], tokenizer, total: int) -> list[int]:
    """Character ends by decoding a sliding window: right where tokens are parts of characters. Linear time."""

    def decoded(start: int, end: int) -> str:
        return tokenizer.decode(ids[start:end], skip_special_tokens=True)

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
def _piece_lookup(tokenizer) -> Callable[[int], str]:
    """token id → the text it adds in mid-sentence, remembered per tokenizer."""
    special = set(tokenizer.all_special_ids)
    anchor = next(iter(tokenizer("a", add_special_tokens=False)["input_ids"]), None)
    prefix = [] if anchor is None or anchor in special else [anchor]
    skip = len(tokenizer.decode(prefix)) if prefix else 0

    @cache
    def piece(token: int) -> str:
        return "" if token in special else tokenizer.decode([*prefix, token])[skip:]

    return piece
