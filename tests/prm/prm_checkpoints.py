"""Tiny random PRM checkpoints in the layouts that the published ones have, made on the spot."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "Janet has 16 eggs a day. She eats 3 and sells the rest for $2 each. How many dollars does she make?",
    "Step 1: 16 - 3 = 13 eggs are left. Step 2: 13 * 2 = 26 dollars.\n\nThe answer is \\boxed{26}. + - good bad user",
]


def byte_level_tokenizer(specials: list[str], chat_template: str | None, **kwargs) -> PreTrainedTokenizerFast:
    """Byte-level BPE split as Qwen2's is, with ``specials`` as added special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens(specials)
    out = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **kwargs)
    out.chat_template = chat_template
    return out


def dimensions(tokenizer) -> dict:
    return {
        "vocab_size": len(tokenizer) + 5,  # published checkpoints pad the embedding too
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,  # so that scores are far from 1/2
        "tie_word_embeddings": False,
    }


def qwen_prm(folder, chat_template: str | None = CHATML):
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"], chat_template, pad_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    Qwen2ForProcessRewardModel(Qwen2Config(**dimensions(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
