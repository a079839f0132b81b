"""The text of generated ids, and which of its tokens completes a character: exact for any ids, a pass over bytes.

For tokenizers that write text as bytes (byte-level BPE; sentencepiece with byte fallback) it is known what each token
adds, so neither the text nor the ends of its characters need the tokenizer. For all others it is asked.
"""

import codecs
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

_BROKEN = "rlhf_prm.broken_bytes"
_TO_REPLACEMENT = {0xDC01: "\ufffd", 0xDC02: "\ufffd", 0xDC03: "\ufffd"}


@runtime_checkable
class TokenText(Protocol):
    """The text of T ids without special tokens."""

    text: str
    num_tokens: int

    def tokens_until(self, characters: Sequence[int]) -> list[int]:
        """For each number of characters of ``text``: how many tokens complete them; 0 for none, at most T."""
        ...


def token_text(token_ids: Sequence[int], tokenizer: Any) -> TokenText:
    """The text of a completion as ``tokenizer.decode(ids, skip_special_tokens=True)`` gives it.

    Args:
        token_ids: (T,), as sampled: special tokens are allowed anywhere, padding is not.
        tokenizer: a Transformers tokenizer.

    Raises:
        ValueError: a negative id.
    """
    ids = np.frombuffer(array("q", token_ids), dtype=np.int64) if len(token_ids) else np.empty(0, np.int64)
    if ids.size and ids.min() < 0:
        raise ValueError(f"token ids: got {int(ids.min())}, expected ids of the vocabulary, 0 or more")
    pieces = _byte_pieces(tokenizer, len(tokenizer))
    return _AskedText(ids.tolist(), tokenizer) if pieces is None else pieces.joined(ids)


def texts_of_tokens(token_ids: Sequence[int], tokenizer: Any) -> list[str]:
    """What each token adds to ``token_text``: the characters that it completes, "" for one that completes none."""
    whole = token_text(token_ids, tokenizer)
    completed_by = np.array(whole.tokens_until(range(1, len(whole.text) + 1)), dtype=np.int64)
    ends = np.searchsorted(completed_by, np.arange(whole.num_tokens + 1), side="right").tolist()
    return [whole.text[start:end] for start, end in pairwise(ends)]


class _ByteText:
    """A text of known bytes.

    Args:
        data: its bytes, of which some may be no UTF-8; they read as U+FFFD.
        ends: (T,) bytes that stand behind so many tokens.
    """

    def __init__(self, data: bytes, ends: np.ndarray) -> None:
        self._data, self._ends, self.num_tokens = data, ends, len(ends)
        self._coded = data.decode("utf-8", _BROKEN)
        self.text = self._coded
        if any(chr(code) in self._coded for code in _TO_REPLACEMENT):
            self.text = self._coded.translate(_TO_REPLACEMENT)

    @cached_property
    def _offsets(self) -> np.ndarray:
        """(characters + 1,) the byte that each character begins at, and the end of the last."""
        code = np.frombuffer(self._coded.encode("utf-32-le", "surrogatepass"), np.uint32)
        widths = 1 + (code > 0x7F).astype(np.int64) + (code > 0x7FF) + (code > 0xFFFF)
        broken = (code > 0xDC00) & (code < 0xDC04)
        return np.concatenate([[0], np.where(broken, code.astype(np.int64) - 0xDC00, widths).cumsum()])

    def tokens_until(self, characters: Sequence[int]) -> list[int]:
        wanted = np.asarray(characters, np.int64)
        offsets = wanted if len(self._data) == len(self.text) else self._offsets[wanted]
        tokens = np.minimum(self._ends.searchsorted(offsets) + 1, self.num_tokens)
        return np.where(wanted == 0, 0, tokens).tolist()


def _broken_bytes(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no character as one, whose code says how many they are: 1 to 3. No text has such a code."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.end - error.start), error.end


codecs.register_error(_BROKEN, _broken_bytes)


class _BytePieces:
    """What each token adds to a text, looked up when it is first seen.

    Args:
        piece: token → its bytes, and whether it is one byte that goes with its neighbours (byte fallback).
        strips: a blank before the first word is dropped.
    """

    def __init__(self, tokenizer: Any, piece: Callable[[str], tuple[bytes, bool]], *, strips: bool) -> None:
        self._piece, self._strips = piece, strips
        self._token = tokenizer.backend_tokenizer.id_to_token
        added = tokenizer.added_tokens_decoder
        self._special = {index for index, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._unknown = len(tokenizer) + 1 + max(added, default=0)  # ids from here on are nobody's
        self._lengths = np.full(self._unknown + 1, -1, np.int64)
        self._bytes = np.full(self._unknown + 1, b"", object)
        self._alone, self._any_alone = np.zeros(self._unknown + 1, bool), False

    def joined(self, ids: np.ndarray) -> _ByteText:
        slots = np.minimum(ids, self._unknown)
        lengths = self._lengths[slots]
        if (lengths < 0).any():
            for slot in np.unique(slots[lengths < 0]).tolist():
                self._look_up(slot)
            lengths = self._lengths[slots]
        pieces = self._bytes[slots].tolist()
        data = b"".join(pieces)
        if self._any_alone and not _is_utf8(data):
            data, lengths = _without_broken_runs(pieces, self._alone[slots].tolist())
        ends = lengths.cumsum()
        if self._strips and data.startswith(b" "):
            data, ends = data[1:], np.maximum(ends - 1, 0)
        return _ByteText(data, ends)

    def _look_up(self, slot: int) -> None:
        token = self._token(slot) if slot < self._unknown and slot not in self._special else None
        self._bytes[slot], self._alone[slot] = (b"", False) if token is None else self._piece(token)
        self._any_alone |= bool(self._alone[slot])
        self._lengths[slot] = len(self._bytes[slot])


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_broken_runs(pieces: list[bytes], alone: list[bool]) -> tuple[bytes, np.ndarray]:
    """The joined pieces and their lengths, with U+FFFD for each byte of a run of bytes that is no UTF-8."""
    pieces, start = pieces[:], 0
    for end in [i for i, single in enumerate(alone) if not single and pieces[i]] + [len(pieces)]:
        if not _is_utf8(b"".join(pieces[start:end])):
            pieces[start:end] = ["\ufffd".encode() if piece else b"" for piece in pieces[start:end]]
        start = end + 1
    return b"".join(pieces), np.array([len(piece) for piece in pieces], np.int64)


@lru_cache(maxsize=8)
def _byte_pieces(tokenizer: Any, size: int) -> _BytePieces | None:
    """The pieces of a tokenizer whose decoder is one of the known ones, and None for any other.

    Args:
        size: the tokenizer's, which changes where tokens are added to it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.decoder is None or tokenizer.clean_up_tokenization_spaces:
        return None
    decoder = json.loads(backend.decoder.__getstate__())
    if decoder["type"] == "ByteLevel":
        return _BytePieces(tokenizer, _byte_level_piece, strips=False)
    parts = decoder.get("decoders", [])
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    fallback = [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    if parts in (fallback, [*fallback, strip]):
        return _BytePieces(tokenizer, _byte_fallback_piece, strips=len(parts) == 4)
    return None


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet of byte-level tokens: printable bytes stand for themselves, the others for what follows 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _byte_level_piece(token: str) -> tuple[bytes, bool]:
    known = _byte_of_character()
    spelt = all(character in known for character in token)
    return bytes(known[character] for character in token) if spelt else token.encode(), False


def _byte_fallback_piece(token: str) -> tuple[bytes, bool]:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)]), True
        except ValueError:  # <0xyz>: an ordinary token
            pass
    return token.replace("▁", " ").encode(), False


class _AskedText:
    """A text whose tokenizer is asked for it, and for the text of each token.

    Only where tokens are parts of characters it is asked for one prefix after the other.
    """

    def __init__(self, ids: list[int], tokenizer: Any) -> None:
        self.num_tokens = len(ids)
        self.text, self._ends = _character_ends(ids, tokenizer)

    def tokens_until(self, characters: Sequence[int]) -> list[int]:
        last = self.num_tokens
        return [min(bisect_left(self._ends, wanted) + 1, last) if wanted else 0 for wanted in characters]


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
