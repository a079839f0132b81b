"""The native Qwen2 PRM: the published layout, in and out, and no head out of thin air."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from tests.tiny_models import tiny_qwen2


def small_config() -> Qwen2Config:
    return tiny_qwen2(64, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)


@pytest.fixture
def model() -> Qwen2ForProcessRewardModel:
    torch.manual_seed(0)
    return Qwen2ForProcessRewardModel(small_config()).eval()


def test_published_layout(model, tmp_path):
    model.save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert {k for k in keys if not k.startswith("model.")} == {
        f"score.{i}.{n}" for i in (0, 2) for n in ("weight", "bias")
    }
    assert {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"} <= keys
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForProcessRewardModel"] and config["model_type"] == "qwen2"


def test_round_trip_and_head(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = Qwen2ForProcessRewardModel.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 64, (2, 9))
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        w0, b0, w2, b2 = (model.state_dict()[f"score.{i}.{n}"] for i in (0, 2) for n in ("weight", "bias"))
        by_hand = torch.clamp(hidden @ w0.T + b0, min=0) @ w2.T + b2
        assert again(ids).logits.shape == (2, 9, 2)
        torch.testing.assert_close(again(ids).logits, by_hand)


def test_lm_head_in_a_published_checkpoint_is_ignored(model, tmp_path):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "lm_head.weight": torch.randn(64, 16)}, tmp_path / "model.safetensors", {"format": "pt"})
    again = Qwen2ForProcessRewardModel.from_pretrained(tmp_path)
    assert set(again.state_dict()) == set(model.state_dict())


@pytest.mark.parametrize("lost", ["score.2.bias", "score.0.weight", "model.layers.0.mlp.up_proj.weight"])
def test_missing_weights_are_refused(model, tmp_path, lost):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=lost):
        Qwen2ForProcessRewardModel.from_pretrained(tmp_path)


def test_a_language_model_is_refused_as_prm_but_starts_one(tmp_path):
    policy = Qwen2ForCausalLM(small_config())
    policy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="with_new_head"):
        Qwen2ForProcessRewardModel.from_pretrained(tmp_path)
    prm = Qwen2ForProcessRewardModel.with_new_head(tmp_path)
    torch.testing.assert_close(prm.model.state_dict()["norm.weight"], policy.model.state_dict()["norm.weight"])
    torch.testing.assert_close(prm.model.embed_tokens.weight, policy.model.embed_tokens.weight)
    assert prm.score[0].weight.std() > 0
