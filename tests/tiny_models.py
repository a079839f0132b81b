"""The one builder of tiny models for the tests: a word-level or a byte-level tokenizer, a tiny Qwen2, a folder of both.

What a test needs besides (a PRM family's layout, a chat template, a learned skill) stands with that test and comes from
these parts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.toyworld.tiny import byte_level_bpe

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny_qwen2(vocabulary: int, **changes: Any) -> Qwen2Config:
    """Two layers of width 16; ``changes`` are settings of ``Qwen2Config``."""
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    return Qwen2Config(**(settings | changes))


def word_tokenizer(
    words: Sequence[str],
    pattern: str | None = None,
    *,
    unknown: str = "<unk>",
    added: Sequence[str] = (),
    **settings: Any,
) -> PreTrainedTokenizerFast:
    """One token per word.

    Args:
        words: in the order of their ids; "<pad>" and "<eos>" are among them.
        pattern: a regular expression of the words; without it blanks part them.
        unknown: the word in place of all others.
        added: the words that hold in any text. ``AutoTokenizer`` makes a byte-level BPE of a tokenizer beside a qwen2
            config; only added words survive that.
        settings: of ``PreTrainedTokenizerFast``.
    """
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=unknown))
    inner.pre_tokenizer = (
        pre_tokenizers.Split(Regex(pattern), "isolated") if pattern else pre_tokenizers.WhitespaceSplit()
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, **({"pad_token": "<pad>", "eos_token": "<eos>"} | settings)
    )
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in added])
    return tokenizer


def byte_level_tokenizer(
    texts: Sequence[str], specials: Sequence[str], vocabulary: int, *, composed: bool = False, **settings: Any
) -> PreTrainedTokenizerFast:
    """Byte-level BPE split as Qwen2's and Llama 3's are, with ``specials`` as added special tokens.

    Args:
        composed: with Qwen2's Unicode normalisation.
        settings: of ``PreTrainedTokenizerFast``, and ``chat_template``.
    """
    cut = [
        pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    normalizer = normalizers.NFC() if composed else None
    inner = byte_level_bpe(texts, vocabulary, pre_tokenizers.Sequence(cut), normalizer=normalizer)
    inner.add_special_tokens(list(specials))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **settings)


def saved(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    model_class: type[PreTrainedModel] = Qwen2ForCausalLM,
    *,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A checkpoint with random weights in ``folder``."""
    torch.manual_seed(seed)
    model_class(tiny_qwen2(len(tokenizer), **changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
