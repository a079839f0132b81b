"""A policy under ZeRO-3 beside a replicated PRM; the sharded placement is in tests/distributed."""

import prm_checkpoints
import pytest
import torch
from transformers.integrations import deepspeed as hf_deepspeed

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.placement import zero3_config

pytest.importorskip("deepspeed")


def test_a_policy_at_stage_3_does_not_shard_a_replicated_prm(tmp_path):
    folder = prm_checkpoints.qwen_prm(tmp_path)
    policys = hf_deepspeed.HfDeepSpeedConfig(zero3_config(torch.float32))
    try:
        assert hf_deepspeed.is_deepspeed_zero3_enabled()
        scorer = load_prm(folder)
        assert not any(hasattr(p, "ds_id") for p in scorer.placement.reader.parameters())
        assert hf_deepspeed.is_deepspeed_zero3_enabled()  # the policy's setting is back
    finally:
        del policys
        hf_deepspeed.unset_hf_deepspeed_config()
