"""The checkpoints and rollouts of the PRM tests, and a policy and a PRM to train with, for the tests that need vLLM."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "prm"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a policy whose heads are 32 wide (vLLM's CPU attention takes no narrower ones) and a PRM."""
    pytest.importorskip("vllm")
    from tests.prm.prm_checkpoints import qwen_prm
    from tests.tiny import tiny_policy, tiny_tokenizer

    folder = tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False}
    tiny_policy(**shape).save_pretrained(folder / "policy")
    tiny_tokenizer().save_pretrained(folder / "policy")
    qwen_prm(folder / "prm")
    return folder
