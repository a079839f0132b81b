"""A random policy and a random PRM with a byte-level tokenizer, for smoke tests without a download."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>")


def tiny_random_models(texts: Sequence[str], root: str | Path, seed: int) -> tuple[Path, Path]:
    """Folders of a random policy and a random PRM (the Qwen2.5-Math-PRM layout), made once per texts and seed.

    Args:
        texts: what the tokenizer is trained on.
        root: where the two folders go.
    """
    digest = hashlib.sha256("\0".join([str(seed), *texts]).encode()).hexdigest()[:12]
    policy_path, prm_path = (Path(root) / f"tiny-random-{part}-{digest}" for part in ("policy", "prm"))
    tokenizer = _tokenizer(texts)
    config = dict(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, model_class in ((policy_path, Qwen2ForCausalLM), (prm_path, Qwen2ForProcessRewardModel)):
            if not (path / "config.json").exists():
                tokenizer.save_pretrained(path)
                model_class(Qwen2Config(**config)).save_pretrained(path)
    return policy_path, prm_path


def byte_level_bpe(
    texts: Sequence[str],
    vocabulary: int,
    cut: pre_tokenizers.PreTokenizer,
    special: Sequence[str] = (),
    normalizer: normalizers.Normalizer | None = None,
) -> Tokenizer:
    """Byte-level BPE learned from ``texts``: ``cut`` says where no merge goes across."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe([*texts, "\n\n"], 1024, cut, SPECIAL),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<extra_0>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
