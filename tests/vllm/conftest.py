"""The checkpoints and rollouts of the PRM tests, and a policy and a PRM to train with, for the tests that need vLLM."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "prm"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a policy whose heads are 32 wide (vLLM's CPU attention takes no narrower ones) and a PRM."""
    pytest.importorskip("vllm")
    from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

    from tests.prm.prm_checkpoints import qwen_prm
    from tests.tiny import WORDS, tiny_tokenizer

    folder = tmp_path_factory.mktemp("models")
    set_seed(0)
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "policy")
    tiny_tokenizer().save_pretrained(folder / "policy")
    qwen_prm(folder / "prm")
    return folder
