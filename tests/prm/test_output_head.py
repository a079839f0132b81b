"""Logits as the decoder itself makes them: with a bias, a factor, a soft cap; and who may be packed."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    HyperCLOVAXConfig,
    Lfm2Config,
    LlamaConfig,
    MiniCPM3Config,
    PhiConfig,
    RecurrentGemmaConfig,
)

from rlhf_prm.prm.output_head import OutputHead
from rlhf_prm.prm.readers import HeadReader, TokenLogProbs

SMALL = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.5,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16}
RECURRENT = {"lru_width": 32, "block_types": ["recurrent", "attention"]}
FALCON = {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
DECODERS = {
    "llama": LlamaConfig(**SMALL),
    "granite": GraniteConfig(**SMALL, logits_scaling=8.0),
    "cohere": CohereConfig(**SMALL, logit_scale=0.25),
    "gemma2": Gemma2Config(**SMALL, query_pre_attn_scalar=16, final_logit_softcapping=2.0),
    "phi": PhiConfig(**{name: value for name, value in SMALL.items() if name != "head_dim"}),
    "hyperclovax": HyperCLOVAXConfig(**SMALL, logits_scaling=0.5),
    "minicpm3": MiniCPM3Config(**SMALL | LATENT | {"num_key_value_heads": 2}, dim_model_base=8),
    "recurrent_gemma": RecurrentGemmaConfig(**SMALL, **RECURRENT, logits_soft_cap=2.0),
    "falcon_h1": FalconH1Config(**SMALL, **FALCON, lm_head_multiplier=0.3),
}


@pytest.fixture(params=DECODERS)
def model(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(DECODERS[request.param]).eval()
    if (bias := getattr(model.get_output_embeddings(), "bias", None)) is not None:
        torch.nn.init.normal_(bias)  # as training leaves it; a new one is 0
    return model


@torch.no_grad()
def test_log_probs_and_log_odds_are_those_of_the_models_own_forward(model):
    ids = torch.randint(2, 32, (2, 12))
    logits = model(ids).logits
    own = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(TokenLogProbs(model)(ids)[:, 1:], own, atol=1e-4, rtol=1e-4)
    bad, good, rows, columns = 5, 9, torch.tensor([0, 0, 1]), torch.tensor([3, 11, 7])
    odds = HeadReader(model.base_model, OutputHead(model, rows=(bad, good)))(ids, rows, columns, torch.tensor([1, 1]))
    read = logits[rows, columns]
    torch.testing.assert_close(odds, read[:, good] - read[:, bad], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name, config, packs",
    [
        ("attention alone", LlamaConfig(**SMALL), True),
        ("sliding windows", Gemma2Config(**SMALL, query_pre_attn_scalar=16), True),
        ("convolutions between attention", Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), False),
        ("a state beside attention", DECODERS["falcon_h1"], False),
    ],
)
def test_rollouts_share_a_row_only_where_nothing_flows_from_one_to_the_next(name, config, packs):
    body = AutoModelForCausalLM.from_config(config).base_model
    body.config._attn_implementation = "flash_attention_2"  # as on a GPU; nothing is computed here
    reader = HeadReader(body, torch.nn.Linear(32, 2))
    assert reader.packs == packs, name
    assert reader.shares_prefixes == (name == "attention alone")
