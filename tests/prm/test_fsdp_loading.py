"""A PRM beside a policy under FSDP: every rank loads it, while transformers loads other models on the first alone."""

import os

import pytest
import transformers.distributed.fsdp
import transformers.modeling_utils
from transformers import AutoModelForCausalLM

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.placement import FSDP_LOADING
from rlhf_prm.prm.token_model import load_token_model
from tests.prm import prm_checkpoints


@pytest.fixture
def second_rank(monkeypatch):
    """This process as the second of two under accelerate's FSDP with its default way of loading."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(FSDP_LOADING, "true")
    monkeypatch.setattr(transformers.distributed.fsdp, "_is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr(transformers.modeling_utils, "is_local_dist_rank_0", lambda: False)


def test_the_second_rank_has_the_prms_own_weights(tmp_path, monkeypatch, request):
    prm_checkpoints.qwen_prm(tmp_path / "prm")
    prm_checkpoints.implicit(tmp_path / "policy", seed=1)
    rollout = (["problem"], [["one step", "another step"]])
    alone = load_prm(tmp_path / "prm").score(*rollout)
    tokens = [([3, 4, 5], [6, 7])]
    alone_log_probs = load_token_model(tmp_path / "policy").log_probs(tokens)
    request.getfixturevalue("second_rank")
    empty = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert not any(weight.any() for weight in empty.parameters())  # what FSDP would fill from the first rank
    assert load_prm(tmp_path / "prm").score(*rollout) == alone
    assert load_token_model(tmp_path / "policy").log_probs(tokens)[0].equal(alone_log_probs[0])
    assert os.environ[FSDP_LOADING] == "true"
    with pytest.raises(OSError):
        load_prm(tmp_path / "nothing")
    assert os.environ[FSDP_LOADING] == "true"
