"""Training that samples with vLLM in the same processes, on CPU: weights in step; one process, and ZeRO-3 on two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, set_seed

from tests.distributed.launch import launch, rank_results
from tests.prm.prm_checkpoints import qwen_prm
from tests.tiny import WORDS, tiny_tokenizer

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "tests/vllm/colocate_run.py"
ENGINE = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A policy whose heads are 32 wide (vLLM's CPU attention takes no narrower ones) and a PRM."""
    pytest.importorskip("vllm")
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


def in_step(result: dict) -> None:
    """After each of three large updates the engine still gives the trainer's log-probabilities."""
    assert len(result["logs"]) == 3
    for log in result["logs"]:
        assert log["sampling/sampling_logp_difference/max"] < 1e-4
        assert log["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_one_process(folder, algorithm):
    environment = os.environ | ENGINE | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, str(folder), algorithm]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert (folder / "rank0.json").exists(), done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads((folder / "rank0.json").read_text())
    in_step(result)
    assert result["moved"] > 1e-3  # the weights the engine had at the start would not do
    AutoModelForCausalLM.from_pretrained(folder / algorithm / "trained")


def test_zero3_on_two_ranks_beside_a_sharded_prm(folder):
    """PPO: policy and critic under ZeRO-3, vLLM in both processes, the PRM sharded over them."""
    for path in folder.glob("rank*.json"):
        path.unlink()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    finished = launch("cpu_zero3", SCRIPT, str(folder), "ppo", port=port, deadline=1200, **ENGINE)
    for result in rank_results(folder, finished):
        assert (result["world_size"], result["backend"], result["zero_stage"]) == (2, "gloo", 3)
        in_step(result)
    before = AutoModelForCausalLM.from_pretrained(folder / "policy").lm_head.weight
    after = AutoModelForCausalLM.from_pretrained(folder / "ppo" / "trained").lm_head.weight
    assert (after - before).abs().max() > 1e-3
