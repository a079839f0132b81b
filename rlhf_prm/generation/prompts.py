"""What the in-process generators share: token ids within the context, and a seed for every row."""

import random
from typing import Any

from rlhf_prm.generation.requests import GenerationError, Prompt, is_token_ids, unit_seed


def prompt_ids(tokenizer: Any, prompt: Prompt, limit: int | None = None) -> list[int]:
    """Token ids of a text, or of a chat by the tokenizer's template; ids as they are.

    Raises:
        GenerationError: they leave no room in a context of ``limit`` tokens.
    """
    if is_token_ids(prompt):
        ids = list(prompt)
    elif isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
    else:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if limit is not None and len(ids) >= limit:
        raise GenerationError(f"the prompt has {len(ids)} tokens, the model's context {limit}")
    return ids


def prompt_seeds(seed: int | list[int] | None, num_prompts: int) -> list[int]:
    """One seed per prompt: as given, derived from one number, or drawn."""
    if isinstance(seed, list):
        return seed
    base = random.getrandbits(31) if seed is None else seed
    return [unit_seed(base, i) for i in range(num_prompts)]
