"""The sharded placement on two ranks over gloo: equal scores, uneven work, failures that stop every rank."""

import os
import subprocess
import sys
from pathlib import Path

import prm_checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations import deepspeed as hf_deepspeed

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.placement import zero3_config

pytest.importorskip("deepspeed")
HERE = Path(__file__).parent


def test_two_ranks_share_a_prm(tmp_path):
    headless = prm_checkpoints.qwen_prm(tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    del weights["score.2.bias"]
    save_file(weights, headless / "model.safetensors", {"format": "pt"})
    folders = [
        prm_checkpoints.qwen_prm(tmp_path / "qwen"),
        prm_checkpoints.math_shepherd(tmp_path / "shepherd"),
        prm_checkpoints.implicit(tmp_path / "policy", seed=0),
        prm_checkpoints.implicit(tmp_path / "reference", seed=1),
        headless,
    ]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(HERE / "zero3_worker.py")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    done = subprocess.run(
        [sys.executable, *launch, *map(str, folders)], env=environment, capture_output=True, text=True, timeout=300
    )
    for rank in (0, 1):
        assert f"rank {rank}: all held" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]


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
