"""Requests to a generator (the prompt, the number of continuations, the seed), and the error of a refusal."""

import hashlib
from dataclasses import dataclass
from typing import Any

Prompt = str | list[dict[str, str]] | list[int]
"""Raw text to continue, chat messages to answer (an assistant's message at the end begins the answer), or token ids to
continue (for a generator with ``reads_ids``)."""


class Sample(str):
    """A sampled text with its token ids, which cannot be recovered from the text alone.

    Attributes:
        ids: the tokens as they were sampled, including a final end-of-sequence token or stop string; None = unknown.
        prompt_ids: the tokens of the prompt, as the model read them; None = unknown.
    """

    ids: list[int] | None
    prompt_ids: list[int] | None

    def __new__(cls, text: str, ids: list[int] | None = None, prompt_ids: list[int] | None = None) -> "Sample":
        sample = super().__new__(cls, text)
        sample.ids, sample.prompt_ids = ids, prompt_ids
        return sample


def is_token_ids(prompt: Any) -> bool:
    """Whether a prompt is token ids."""
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)


@dataclass(frozen=True)
class Generate:
    """Answer: ``n`` continuations of ``prompt`` (``list[str]``).

    Requests of one ``group`` share a prefix, so an endpoint's prefix cache serves them best on one host. A text ends
    before the first of the ``stop`` strings.
    """

    prompt: Prompt
    n: int
    seed: int
    group: str = ""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choose:
    """Answer: the probability of each of ``choices`` as the continuation of ``prompt``, normalised over them
    (``list[float]``, which sums to 1); None if the generator does not give probabilities.

    A choice stands for its first token.
    """

    prompt: Prompt
    choices: tuple[str, ...]


class GenerationError(ValueError):
    """The generator cannot serve this prompt (too long, refused by the server); other prompts are not affected."""


def unit_seed(seed: int, *parts: str | int) -> int:
    """A seed in [0, 2³¹) for one unit of work: the same on every machine and in every order of execution."""
    digest = hashlib.blake2b("\x1f".join(map(str, (seed, *parts))).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
