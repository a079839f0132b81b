"""A word-level tokenizer, a tiny Qwen2 and step labels that a model can learn: a step that says "bad" is wrong."""

import random
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from tests.tiny_models import saved, tiny_qwen2, word_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "<extra_0>", "add", "good", "bad", "so", "1", "2", "3"]
TEMPLATE = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }} {% endif %}{% endfor %}"


SIZES = {"max_position_embeddings": 128, "initializer_range": 0.1}


def good_or_bad_tokenizer() -> PreTrainedTokenizerFast:
    marks = {"unk_token": "<unk>", "extra_special_tokens": ["<extra_0>"], "chat_template": TEMPLATE}
    return word_tokenizer(WORDS, added=WORDS[4:], **marks)


def language_model(folder: Path) -> Path:
    """A checkpoint to train a PRM from."""
    return saved(folder, good_or_bad_tokenizer(), **SIZES)


def untrained_prm(folder: Path) -> Path:
    """A PRM of random weights."""
    torch.manual_seed(0)
    Qwen2ForProcessRewardModel(tiny_qwen2(len(WORDS), **SIZES)).save_pretrained(folder)
    good_or_bad_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    return good_or_bad_tokenizer()


@pytest.fixture
def qwen2_config() -> Qwen2Config:
    return tiny_qwen2(len(WORDS), **SIZES)


@pytest.fixture
def model(qwen2_config):
    torch.manual_seed(0)
    return Qwen2ForProcessRewardModel(qwen2_config)


@pytest.fixture
def language_model_folder(tmp_path):
    return language_model(tmp_path / "language-model")


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
