"""A tiny random PRM on disk, as ``load_prm`` finds it."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel

WORDS = ["<pad>", "<eos>", "<unk>", "<extra_0>", "step", "good", "bad", "\n\n", *"0123456789", "\\boxed{", "}", " "]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens=["<extra_0>"], padding_side="left",
    )  # fmt: skip
    fast.add_tokens([AddedToken(word, normalized=False) for word in WORDS[4:]])
    return fast


def tiny_config() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        initializer_range=0.5,
    )  # fmt: skip


@pytest.fixture(scope="session")
def prm_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("prm")
    Qwen2ForProcessRewardModel(tiny_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    Qwen2ForCausalLM(tiny_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
