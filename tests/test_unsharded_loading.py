"""PRMs and judges beside a sharded policy: every rank loads them whole, while the policy itself is not there whole.

The sharded placement of a PRM is in tests/distributed.
"""

import os

import pytest
import torch
import transformers.distributed.fsdp
import transformers.modeling_utils
from transformers import AutoModelForCausalLM
from transformers.integrations import deepspeed as hf_deepspeed

from rlhf_prm.generation.hf import HFGenerator
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.placement import zero3_config
from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.unsharded_loading import FSDP_LOADING
from tests.prm import prm_checkpoints


@pytest.fixture
def second_fsdp_rank(monkeypatch):
    """This process as the second of two under accelerate's FSDP with its default way of loading."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(FSDP_LOADING, "true")
    monkeypatch.setattr(transformers.distributed.fsdp, "_is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr(transformers.modeling_utils, "is_local_dist_rank_0", lambda: False)
    return lambda: os.environ.get(FSDP_LOADING) == "true"


@pytest.fixture
def zero3_rank():
    """This process as one whose policy is trained at ZeRO's stage 3."""
    pytest.importorskip("deepspeed")
    policys = hf_deepspeed.HfDeepSpeedConfig(zero3_config(torch.float32))
    yield hf_deepspeed.is_deepspeed_zero3_enabled
    del policys
    hf_deepspeed.unset_hf_deepspeed_config()


def outputs(prm, model) -> tuple[list[list[float]], list[float], list[list[float]]]:
    """What a PRM, a token model and a judge's generator compute from the weights that they load."""
    step_scores = load_prm(prm).score(["problem"], [["one step", "another step"]])
    (log_probs,) = load_token_model(model).log_probs([([3, 4, 5], [6, 7])])
    return step_scores, log_probs.tolist(), HFGenerator(str(model), device="cpu").choose(["problem"], ("one", "step"))


@pytest.mark.parametrize("rank", ["second_fsdp_rank", "zero3_rank"])
def test_a_rank_of_a_sharded_policy_has_whole_prms_and_judges(tmp_path, request, rank):
    prm = prm_checkpoints.qwen_prm(tmp_path / "prm")
    model = prm_checkpoints.implicit(tmp_path / "model", seed=1)
    alone = outputs(prm, model)
    shards_the_policy = request.getfixturevalue(rank)
    assert shards_the_policy()
    assert outputs(prm, model) == alone
    assert shards_the_policy()
    with pytest.raises(OSError):
        load_prm(tmp_path / "nothing")
    assert shards_the_policy()  # after an error too


def test_without_it_the_second_fsdp_rank_has_zeros(tmp_path, second_fsdp_rank):
    empty = AutoModelForCausalLM.from_pretrained(prm_checkpoints.implicit(tmp_path))
    assert not any(weight.any() for weight in empty.parameters())  # what FSDP would fill from the first rank
