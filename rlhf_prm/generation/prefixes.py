"""Prefixes of a solution as token ids, so that a model continues exactly the tokens that it wrote.

Text ending in a blank line may be one token where the model wrote two ("\\n", "\\n"), or the other way round. A model
that is given tokens it would never write there answers from another distribution. So a prefix is cut from the ids the
model sampled. If only the text is known, the whole text is tokenized and cut at the token that completes the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rlhf_prm.generation.prompts import prompt_ids as ids_of_prompt
from rlhf_prm.generation.requests import Prompt, Sample
from rlhf_prm.steps import StepSplitter, tokens_until

_NEXT_WORD = "So"  # stands for the text that will follow a prefix


@dataclass(frozen=True)
class TokenPrefixes:
    """A prompt's ids, a solution's ids, and for each step how many of the latter it ends with."""

    tokenizer: Any
    prompt_ids: list[int]
    ids: list[int]
    ends: list[int]

    def prompt(self, step: int) -> list[int]:
        """Prompt and solution up to the end of a step (from 0), to be continued."""
        return [*self.prompt_ids, *self.ids[: self.ends[step]]]

    def text(self, step: int, continuation: str = "") -> str:
        """The solution up to the end of a step, and a continuation; decoded together if the ids of both are known."""
        ids = getattr(continuation, "ids", None)
        before = self.ids[: self.ends[step]]
        if ids is not None:
            return self.tokenizer.decode([*before, *ids], skip_special_tokens=True)
        return self.tokenizer.decode(before, skip_special_tokens=True) + continuation


def sampled_prefixes(
    tokenizer: Any, prompt_ids: list[int], ids: list[int], text: str, splitter: StepSplitter
) -> TokenPrefixes | None:
    """Prefixes from the ids that were sampled; None if this tokenizer does not decode them to ``text``.

    Steps that end in the same token have the same prefix.
    """
    if tokenizer.decode(ids, skip_special_tokens=True) != text:
        return None
    ends = tokens_until(ids, tokenizer, [end for _, _, end in splitter.cuts(text)])
    return TokenPrefixes(tokenizer, prompt_ids, ids, ends)


def written_prefixes(
    tokenizer: Any, prompt: Prompt, steps: Sequence[str], separator: str, texts: Sequence[str] | None = None
) -> TokenPrefixes:
    """Prefixes from the ids of the whole text: the prompt, and the steps with separators between them.

    Args:
        tokenizer: a fast one, which gives the positions of its tokens in the text.
        texts: the solution's own text up to the end of each step, if it is known; it is then tokenized.
    """
    before = ids_of_prompt(tokenizer, prompt)
    if texts is None:
        texts = list(accumulate([*(step + separator for step in steps[:-1]), steps[-1]]))
    ids, starts = _ids_behind(tokenizer, prompt, before, texts[-1])
    ends = [sum(start < len(text) for start in starts) for text in texts]
    return TokenPrefixes(tokenizer, before, ids, ends)


def _ids_behind(tokenizer: Any, prompt: Prompt, before: list[int], text: str) -> tuple[list[int], list[int]]:
    """Ids of a text after a prompt, and the character of the text at which each of them starts."""
    if isinstance(prompt, str):
        both = tokenizer(prompt + text, return_offsets_mapping=True)
        if both["input_ids"][: len(before)] == before:
            starts = [start - len(prompt) for start, _ in both["offset_mapping"][len(before) :]]
            return both["input_ids"][len(before) :], starts
    alone = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return alone["input_ids"], [start for start, _ in alone["offset_mapping"]]


def ids_before_a_word(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text when a word follows it: a blank line at the very end may be tokenized differently."""
    encoded = tokenizer(text + _NEXT_WORD, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    if len(text) not in ends:  # a token holds the end of the text and the word
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return encoded["input_ids"][: len(ends) - ends[::-1].index(len(text))]


def step_ids(tokenizer: Any, step: str, sampled: str, separator: str) -> list[int]:
    """Ids of a step and the separator after it, as they were sampled if that is known.

    Args:
        step: the step's text.
        sampled: the generator's text for it, which ended at the separator or at the end of the answer.
    """
    ids = sampled.ids if isinstance(sampled, Sample) else None
    if ids is None:
        return ids_before_a_word(tokenizer, step + separator)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if separator in text:
        return ids[: tokens_until(ids, tokenizer, [text.index(separator) + len(separator)])[0]]
    special = set(tokenizer.all_special_ids)
    return [*(token for token in ids if token not in special), *ids_before_a_word(tokenizer, separator)]
