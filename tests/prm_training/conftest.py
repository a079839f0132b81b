"""A word-level tokenizer, a tiny Qwen2 and step labels that a model can learn: a step that says "bad" is wrong."""

import random

import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel

WORDS = ["<pad>", "<eos>", "<unk>", "<extra_0>", "add", "good", "bad", "so", "1", "2", "3"]
TEMPLATE = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }} {% endif %}{% endfor %}"


@pytest.fixture(scope="session")
def tokenizer():
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=["<extra_0>"], chat_template=TEMPLATE,
    )  # fmt: skip
    # AutoTokenizer makes a byte-level BPE of it beside a qwen2 config; added tokens survive that
    fast.add_tokens([AddedToken(word, normalized=False) for word in WORDS[4:]])
    return fast


@pytest.fixture
def qwen2_config() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        initializer_range=0.1,
    )  # fmt: skip


@pytest.fixture
def model(qwen2_config):
    torch.manual_seed(0)
    return Qwen2ForProcessRewardModel(qwen2_config)


@pytest.fixture
def language_model_folder(qwen2_config, tokenizer, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "language-model"
    Qwen2ForCausalLM(qwen2_config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def stepwise_rows(size: int, seed: int = 0) -> Dataset:
    generator = random.Random(seed)
    rows = []
    for _ in range(size):
        words = [generator.choice(["good", "good", "bad"]) for _ in range(generator.randint(1, 4))]
        rows.append(
            {
                "prompt": f"add {generator.randint(1, 3)}",
                "completions": [f"so {word} {generator.randint(1, 3)}" for word in words],
                "labels": [word == "good" for word in words],
                "soft_labels": [0.75 if word == "good" else 0.25 for word in words],
            }
        )
    return Dataset.from_list(rows)
