"""Checks that a tokenizer is the one that a checkpoint was saved with, and that it can end an answer.

transformers is imported only where it is needed, because the commands' help texts do not need it.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

# Blank lines, indented lines, numbers, contractions, letters beyond ASCII: tokenizers differ in these.
PROBES = (
    "Step 1: 3 + 14 = 17 eggs.\n\nSo there're 1,234 left, isn't it?\n\n\n\tAnswer: \\boxed{x_1^2}",
    "  Größe 数 α ≤ 0.5;   f(x)=2*x  # done\n",
)
_USER, _ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "\ue000"}


def saved_tokenizer(name: str | os.PathLike, **kwargs: Any) -> Any:
    """The tokenizer of a checkpoint, exactly as its tokenizer.json has it.

    ``AutoTokenizer`` gives some checkpoints the class of their architecture, whatever the file says: Qwen2's cuts a
    text as Qwen2 does. A model that was trained with another tokenizer would be misread.

    Args:
        kwargs: as for ``from_pretrained``, such as ``revision`` and ``padding_side``.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    revision = kwargs.get("revision")
    if cached_file(name, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False) is None:
        return AutoTokenizer.from_pretrained(name, **kwargs)
    return PreTrainedTokenizerFast.from_pretrained(name, **kwargs)


def check_is_saved_one(tokenizer: Any, name: str | os.PathLike) -> None:
    """Check that a tokenizer gives the same ids as the tokenizer.json that is stored with a checkpoint.

    If there is no such file on this machine, nothing is compared.

    Raises:
        ValueError: the ids differ.
    """
    from tokenizers import Tokenizer
    from transformers.utils import cached_file

    if not name:
        return
    try:
        file = cached_file(name, "tokenizer.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
    except OSError:  # a name that is no folder, and not in the cache
        return
    if file is None:
        return
    stored = Tokenizer.from_file(file)
    stored.no_truncation()
    stored.no_padding()
    for text in PROBES:
        got = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected = stored.encode(text, add_special_tokens=False).ids
        if got != expected:
            first = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), -1)
            raise ValueError(
                f"the tokenizer ({type(tokenizer).__name__}) is not the one that {name} was saved with: of {text!r} it "
                f"makes {len(got)} tokens, {name}/tokenizer.json {len(expected)}; the first difference is at {first}. "
                "AutoTokenizer may have used the class of the architecture instead; load it with "
                f"rlhf_prm.tokenizer_checks.saved_tokenizer({str(name)!r}), or give the one that the model was trained "
                "with"
            )


def check_ends(tokenizer: Any, end_ids: Sequence[int | None] = ()) -> None:
    """Check that a policy's tokenizer can end an answer.

    Warns where the chat template ends a turn with a token at which generation does not stop.

    Args:
        end_ids: further ids at which generation stops (None is passed over), besides the tokenizer's own token.

    Raises:
        ValueError: it has no end-of-sequence token, or one with which the chat template *begins* an answer.
    """
    own = tokenizer.eos_token_id
    ends = {end for end in (own, *end_ids) if end is not None}
    if not ends:
        raise ValueError(
            "the policy's tokenizer has no end-of-sequence token, so no answer would end before the length limit; set "
            "tokenizer.eos_token to the token that ends an answer, and save it with the checkpoint"
        )
    opening, closing = special_tokens_of_a_turn(tokenizer)
    if own is not None and own in opening:
        known = f" (this template ends a turn with {tokenizer.decode(closing[:1])!r})" if closing else ""
        raise ValueError(
            f"the policy's tokenizer calls {tokenizer.eos_token!r} the end of a sequence, but its chat template begins "
            "an answer with it: a wrong setting, as from a GGUF file. Set tokenizer.eos_token to the token that "
            f"ends an answer{known}, and save it with the checkpoint"
        )
    if closing and closing[0] not in ends:
        warnings.warn(
            f"the chat template ends a turn with {tokenizer.decode(closing[:1])!r}, but generation stops only at "
            f"{tokenizer.decode(sorted(ends))!r}: right for a base model that was not trained on the template, "
            "otherwise set tokenizer.eos_token, or eos_token_id of the generation config",
            stacklevel=3,
        )


def special_tokens_of_a_turn(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of the special tokens with which the chat template begins an assistant's turn, and ends it."""
    from jinja2.exceptions import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        return [], []
    try:
        asked = tokenizer.apply_chat_template([_USER], tokenize=False)
        begun = tokenizer.apply_chat_template([_USER], tokenize=False, add_generation_prompt=True)
        answered = tokenizer.apply_chat_template([_USER, _ANSWER], tokenize=False)
    except (TemplateError, TypeError, KeyError, AttributeError):  # a template may need more than these messages
        return [], []
    special = set(tokenizer.all_special_ids) | {
        index for index, token in tokenizer.added_tokens_decoder.items() if token.special
    }

    def found(text: str) -> list[int]:
        return [i for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i in special]

    return found(begun.removeprefix(asked)), found(answered.partition(_ANSWER["content"])[2])


def check_policy(tokenizer: Any, model: Any) -> None:
    """Runs :func:`check_is_saved_one` and :func:`check_ends` for a loaded model, and checks that it embeds the ids.

    Raises:
        ValueError: one of these checks fails.
    """
    config = getattr(model, "config", None)
    check_is_saved_one(tokenizer, getattr(config, "_name_or_path", ""))
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    check_ends(tokenizer, ends if isinstance(ends, list) else [ends])
    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    rows = getattr(embeddings, "num_embeddings", None)
    for role, index in (("end-of-sequence", tokenizer.eos_token_id), ("pad", tokenizer.pad_token_id)):
        if rows is not None and index is not None and index >= rows:
            raise ValueError(
                f"the policy's {role} token has id {index}, but the model embeds {rows} tokens: give the tokenizer "
                "that the model was saved with, or call model.resize_token_embeddings(len(tokenizer)) and save both"
            )
