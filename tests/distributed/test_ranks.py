"""GRPO and PPO on two processes against one: the same step advantages, losses, weights; DDP and ZeRO-1, 2, 3."""

import socket

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.distributed.launch import launch, rank_results
from tests.distributed.scripted_run import run

SCRIPT = "tests/distributed/scripted_run.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same work in one process."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, {algorithm: run(algorithm, folder / algorithm) for algorithm in ("grpo", "ppo")}


@pytest.mark.parametrize(
    ("config", "kind", "wrapper"),
    [
        ("cpu_ddp", "DistributedType.MULTI_CPU", "DistributedDataParallel"),
        pytest.param("cpu_zero1", "DistributedType.DEEPSPEED", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("cpu_zero2", "DistributedType.DEEPSPEED", "DeepSpeedEngine", marks=pytest.mark.slow),
        ("cpu_zero3", "DistributedType.DEEPSPEED", "DeepSpeedEngine"),
    ],
)
def test_two_ranks_equal_one(tmp_path, alone, config, kind, wrapper):
    """Losses and step advantages to 1e-5 over 3 updates; the saved policies load and are equal; resuming goes on."""
    finished = launch(config, SCRIPT, str(tmp_path), "grpo", "ppo", "grpo-resume", "ppo-resume", port=free_port())
    ranks = rank_results(tmp_path, finished)
    folder, expected = alone
    for rank in ranks:
        for part, result in rank.items():
            algorithm = part.partition("-")[0]
            reference = expected[algorithm]
            assert (result["world_size"], result["backend"]) == (2, "gloo")
            assert (result["type"], result["wrapper"]) == (kind, wrapper)
            assert result["zero_stage"] == (int(config[-1]) if "zero" in config else None)
            updates = slice(2, 3) if part.endswith("resume") else slice(0, 3)
            for got, wanted in zip(result["step_advantages"], reference["step_advantages"][updates], strict=True):
                torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), atol=1e-5, rtol=1e-5)
            for got, wanted in zip(result["logs"], reference["logs"], strict=True):
                assert got == pytest.approx(wanted, abs=1e-5, rel=1e-5), part
    for algorithm in ("grpo", "ppo"):
        wanted = AutoModelForCausalLM.from_pretrained(folder / algorithm / "policy")
        for saved in ("policy", "resumed"):
            got, report = AutoModelForCausalLM.from_pretrained(tmp_path / algorithm / saved, output_loading_info=True)
            assert not report["missing_keys"] and not report["unexpected_keys"]
            for name, parameter in wanted.named_parameters():
                torch.testing.assert_close(got.get_parameter(name), parameter, atol=1e-4, rtol=1e-4, msg=name)
