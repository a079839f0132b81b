"""A tiny random PRM on disk, as ``load_prm`` finds it."""

import pytest
from transformers import PreTrainedTokenizerFast

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from tests.tiny_models import saved, word_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "<extra_0>", "step", "good", "bad", "\n\n", *"0123456789", "\\boxed{", "}", " "]


SIZES = {"num_hidden_layers": 1, "max_position_embeddings": 4096, "initializer_range": 0.5}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    marks = {"unk_token": "<unk>", "extra_special_tokens": ["<extra_0>"], "padding_side": "left"}
    return word_tokenizer(WORDS, added=WORDS[4:], **marks)


@pytest.fixture(scope="session")
def prm_folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("prm"), tiny_tokenizer(), Qwen2ForProcessRewardModel, **SIZES)


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("policy"), tiny_tokenizer(), **SIZES)
