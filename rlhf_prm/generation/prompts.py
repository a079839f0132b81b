"""Functions of the in-process generators: token ids within the context, and a seed for every row."""

import random
from typing import Any

from rlhf_prm.generation.requests import GenerationError, Prompt, is_token_ids, unit_seed


def prompt_ids(tokenizer: Any, prompt: Prompt, limit: int | None = None) -> list[int]:
    """Token ids of a text, or of a chat by the tokenizer's template; ids as they are.

    If the last message is the assistant's, it is the beginning of the answer.

    Raises:
        GenerationError: they leave no room in a context of ``limit`` tokens.
    """
    if is_token_ids(prompt):
        ids = list(prompt)
    elif isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
    else:
        begun = prompt[-1]["content"] if prompt[-1]["role"] == "assistant" else None
        asked = prompt if begun is None else prompt[:-1]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) + (begun or "")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if limit is not None and len(ids) >= limit:
        raise GenerationError(f"the prompt has {len(ids)} tokens, the model's context {limit}")
    return ids


def first_tokens(tokenizer: Any, choices: tuple[str, ...]) -> list[int]:
    """The id that each choice begins with.

    Raises:
        ValueError: two of them begin alike, so that their probabilities are the same.
    """
    ids = [tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in choices]
    if len(set(ids)) < len(ids):
        raise ValueError(f"choices {', '.join(map(repr, choices))} begin with the same token: got ids {ids}")
    return ids


def prompt_seeds(seed: int | list[int] | None, num_prompts: int) -> list[int]:
    """One seed per prompt: as given, derived from one number, or drawn."""
    if isinstance(seed, list):
        return seed
    base = random.getrandbits(31) if seed is None else seed
    return [unit_seed(base, i) for i in range(num_prompts)]
