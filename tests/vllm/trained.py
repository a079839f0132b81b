"""Runs training_run.py and checks that vLLM sampled with the weights that were being trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.distributed.launch import ROOT, free_port, launch, rank_results

SCRIPT = "tests/vllm/training_run.py"
DEADLINE = 1200  # seconds; one process takes half a minute on an idle machine
ENGINE = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1", "VLLM_HOST_IP": "127.0.0.1"}


def in_step(result: dict) -> None:
    """After each of three large updates the engine still gives the trainer's log-probabilities."""
    assert len(result["logs"]) == 3
    for log in result["logs"]:
        assert log["sampling/sampling_logp_difference/max"] < 1e-4
        assert log["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)


def trains_alone(models: Path, algorithm: str, *url: str) -> None:
    """One process."""
    (models / "rank0.json").unlink(missing_ok=True)
    environment = os.environ | ENGINE | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, SCRIPT, str(models), algorithm, *url]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert (models / "rank0.json").exists(), done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads((models / "rank0.json").read_text())
    in_step(result)
    assert result["moved"] > 1e-3  # the weights the engine had at the start would not do
    AutoModelForCausalLM.from_pretrained(models / algorithm / "trained")


def trains_under_zero3(models: Path, *url: str) -> None:
    """PPO on two processes: policy and critic under ZeRO-3, the PRM sharded over them too."""
    for path in models.glob("rank*.json"):
        path.unlink()
    finished = launch("cpu_zero3", SCRIPT, str(models), "ppo", *url, port=free_port(), deadline=DEADLINE, **ENGINE)
    for result in rank_results(models, finished):
        assert (result["world_size"], result["backend"], result["zero_stage"]) == (2, "gloo", 3)
        in_step(result)
    before = AutoModelForCausalLM.from_pretrained(models / "policy").lm_head.weight
    after = AutoModelForCausalLM.from_pretrained(models / "ppo" / "trained").lm_head.weight
    assert (after - before).abs().max() > 1e-3
