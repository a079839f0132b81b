"""Tokenises trusted text (templates, tags) and untrusted text (problems and steps, which a model wrote)."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

WORD_JOINER = "\u2060"  # invisible; put inside a tag that occurs in untrusted text, so that it is not read as the tag
DATE = "26 Jul 2024"  # of Llama 3.1's template; Llama 3.2's writes today's date, on which no score may depend
_SLOTS = ("\ue000", "\ue001")  # private-use characters that stand for untrusted text in a chat template


@dataclass(frozen=True)
class Rendered:
    """One rollout as a PRM reads it.

    ``ids`` token ids; ``ends`` for each step the index in ``ids`` that is read; ``start`` the first index past the
    problem. A causal PRM never looks past the last end, so ``ids`` stop there.
    """

    ids: list[int]
    ends: list[int]
    start: int


class Texts:
    """A PRM's tokenizer; text in problems and steps can never become its tag or a special token.

    Args:
        tokenizer: a fast tokenizer.
        tag: the step tag, ``None`` for families without one.

    Raises:
        ValueError: ``tag`` is not one token of the tokenizer.
    """

    def __init__(self, tokenizer, tag: str | None = None):
        self.tokenizer = tokenizer
        self.tag = tag
        self.tag_id = None if tag is None else self.token_id(tag, "step tag")
        special = {i: str(t) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        special.pop(tokenizer.unk_token_id, None)
        if tag is not None and tag.strip():  # a line break, the tag of some families, is ordinary text too
            special[self.tag_id] = tag.strip()
        self._forbidden = special
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.tag_is_added = self.tag_id in tokenizer.added_tokens_decoder
        self.template_ids = lru_cache(maxsize=64)(self._template_ids)

    @cached_property
    def first_ids(self) -> list[int]:
        """The ids that the tokenizer itself puts before a text: BOS for some, but not for all that have one."""
        ids = self.tokenizer(self.tag)["input_ids"]
        return ids[: ids.index(self.tag_id)]

    def token_id(self, text: str, role: str) -> int:
        """The id of ``text``; ``ValueError`` if it is not exactly one token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        if len(ids) != 1 or (ids[0] == unknown and text != self.tokenizer.unk_token):
            raise ValueError(
                f"the PRM's tokenizer {self.tokenizer.name_or_path} does not have the {role} {text!r} as "
                f"one token: got {ids}. Name the family whose marks this checkpoint was trained with, or load the "
                "tokenizer that belongs to it."
            )
        return ids[0]

    def _template_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain_ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without any special token or tag, whatever the text contains."""
        return [ids for ids, _ in self.plain_ids_and_offsets(texts)]

    def plain_ids_and_offsets(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """As :meth:`plain_ids`, with each token's (start, end) characters in the text (with word joiners, if any)."""
        if not texts:
            return []
        encoded = self._encoded(texts)
        return [
            pair if self._forbidden.keys().isdisjoint(pair[0]) else self._encoded([self.broken(text)])[0]
            for text, pair in zip(texts, encoded, strict=True)
        ]

    def broken(self, text: str) -> str:
        """``text`` with a word joiner inside every special token or tag that it spells out."""
        for content in self._forbidden.values():
            text = text.replace(content, content[:1] + WORD_JOINER + content[1:])
        return text

    def _encoded(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        out = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        return list(zip(out["input_ids"], out["offset_mapping"], strict=True))

    def ids_and_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of one trusted text with the tokenizer's own first and last tokens (BOS); tags in it become tags."""
        out = self.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
        return out["input_ids"], out["offset_mapping"]

    @property
    def has_chat_template(self) -> bool:
        return self.tokenizer.chat_template is not None

    def chat_pieces(self, messages: tuple[tuple[str, str], ...]) -> list[str]:
        """The chat template's text around each ``None``-content slot: n slots give n + 1 pieces.

        ``messages`` are (role, content) pairs; a content of ``"{0}"`` or ``"{1}"`` marks a slot for untrusted text.
        """
        filled = [
            {"role": role, "content": content.replace("{0}", _SLOTS[0]).replace("{1}", _SLOTS[1])}
            for role, content in messages
        ]
        text = self.tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=False, date_string=DATE)
        head, _, rest = text.partition(_SLOTS[0])
        middle, _, tail = rest.partition(_SLOTS[1])
        return [head, middle, tail]
