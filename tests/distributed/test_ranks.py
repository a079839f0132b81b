"""GRPO and PPO on two processes against one: the same step advantages, losses, weights; DDP, ZeRO-1, 2, 3 and FSDP2."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.distributed.conftest import DEADLINE, SCRIPT, fsdp2_config
from tests.distributed.launch import Finished, free_port, launch, rank_results
from tests.distributed.scripted_run import (
    run,
    run_with_calls,
    run_with_implicit_prm,
    run_with_live_values,
    run_with_prm,
    run_with_token_scores,
    run_with_tools,
)

OWN_REFERENCE = (
    "prm",
    "live",
    "tokens",
    "turns",
    "tools",
    "implicit",
    "beside",
)  # the others are another way of doing "grpo" and "ppo"

pytestmark = pytest.mark.timeout(DEADLINE + 300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, checkpoints):
    """The same work in one process."""
    folder, prm = tmp_path_factory.mktemp("alone"), checkpoints.prms / "qwen"
    results = {algorithm: run(algorithm, folder / algorithm) for algorithm in ("grpo", "ppo")}
    results |= {f"{a}-prm": run_with_prm(a, folder, prm, placement="replicate") for a in ("grpo", "ppo")}
    results["grpo-live"] = run_with_live_values("grpo", folder)
    results |= {f"{a}-tokens": run_with_token_scores(a, folder) for a in ("grpo", "ppo")}
    results["grpo-implicit"] = run_with_implicit_prm(folder, checkpoints.implicit)
    results["grpo-beside"] = run_with_implicit_prm(folder, None)
    results |= {f"{a}-turns": run_with_tools(a, folder) for a in ("grpo", "ppo")}
    results |= {f"{a}-tools": run_with_calls(a, folder) for a in ("grpo", "ppo")}
    return folder, results


def check_numbers(part: str, result: dict, reference: dict) -> None:
    """Step advantages to 1e-5 and what was logged to 2e-5 (a gradient norm sums in another order), update by update."""
    updates = slice(2, 3) if part.endswith("resume") else slice(0, 3)
    for got, wanted in zip(result["step_advantages"], reference["step_advantages"][updates], strict=True):
        torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), atol=1e-5, rtol=1e-5)
    for got, wanted in zip(result["logs"], reference["logs"], strict=True):
        assert got == pytest.approx(wanted, abs=1e-5, rel=2e-5), part


@pytest.mark.parametrize(
    ("config", "kind", "wrapper"),
    [
        ("cpu_ddp", "DistributedType.MULTI_CPU", "DistributedDataParallel"),
        pytest.param("cpu_zero1", "DistributedType.DEEPSPEED", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("cpu_zero2", "DistributedType.DEEPSPEED", "DeepSpeedEngine", marks=pytest.mark.slow),
        ("cpu_zero3", "DistributedType.DEEPSPEED", "DeepSpeedEngine"),
        pytest.param("fsdp2", "DistributedType.FSDP", "FSDPQwen2ForCausalLM", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_equal_one(two_ranks, alone, config, kind, wrapper):
    """Losses and step advantages to 1e-5 over 3 updates; the saved policies load and are equal; resuming goes on."""
    folder, expected = alone
    launched = two_ranks(config)
    ranks = launched.results("scripted")
    for rank in ranks:
        sampled = rank.pop("ppo-sampled")  # each rank draws its own, so there is nothing to compare with
        assert len(sampled) == 2 and all(math.isfinite(loss) for loss in sampled)
        for part, result in rank.items():
            assert (result["world_size"], result["backend"]) == (2, "gloo")
            assert (result["type"], result["wrapper"]) == (kind, wrapper)
            assert result["zero_stage"] == (int(config[-1]) if "zero" in config else None)
            check_numbers(
                part,
                result,
                expected[part if part.endswith(OWN_REFERENCE) else part.partition("-")[0]],
            )
    few, many = (rank["grpo-live"] for rank in ranks)
    assert few["scorer_tokens"] == many["scorer_tokens"] == few["tokens"] + many["tokens"]
    assert few["prefixes"] != many["prefixes"] and min(few["completions"], many["completions"]) > 0
    few, many = sorted((rank["ppo-tools"]["turns"] for rank in ranks), key=lambda turns: turns.count([1, 1]))
    own = [len(turns) - turns.count([1, 1]) for turns in (few, many)]
    if config in ("cpu_zero3", "fsdp2"):  # every turn needs both; who has none samples one token
        assert len(few) == len(many) and own[0] > own[1]
    else:
        assert [len(few), len(many)] == own and own[0] != own[1]
    if "zero" in config:
        assert {"grpo-prm", "ppo-prm"} <= ranks[0].keys()
        few, many = (rank["grpo-prm"] for rank in ranks)
        assert few["prm_sharded"] and many["prm_sharded"]
        # Identical rollouts of one prompt are scored once, and those of the first rank are all alike in one update: it
        # makes forwards of nothing to keep step.
        assert few["own_forwards"] < few["forwards"] == many["forwards"] >= many["own_forwards"]
    for algorithm in ("grpo", "ppo"):
        held, whole = [rank[algorithm]["held"] for rank in ranks], expected[algorithm]["held"]
        if config == "fsdp2":
            assert sum(held) == whole and max(held) <= 0.6 * whole
        elif config != "cpu_zero3":
            assert held == [whole, whole]
        wanted = AutoModelForCausalLM.from_pretrained(folder / algorithm / "policy")
        for saved in ("policy", "resumed"):
            got, report = AutoModelForCausalLM.from_pretrained(
                launched.folder / "scripted" / algorithm / saved, output_loading_info=True
            )
            assert not report["missing_keys"] and not report["unexpected_keys"]
            for name, parameter in wanted.named_parameters():
                torch.testing.assert_close(got.get_parameter(name), parameter, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_accelerate_makes_ddp_of_fsdp_on_a_cpu(tmp_path):
    """The reason for fsdp2_run.py, and for docs/scaling.md to say so. When this fails, accelerate has learnt it."""
    finished = launch(fsdp2_config(tmp_path), SCRIPT, str(tmp_path), "scripted:grpo", port=free_port())
    for rank in rank_results(tmp_path / "scripted", finished):
        assert (rank["grpo"]["type"], rank["grpo"]["wrapper"]) == (
            "DistributedType.MULTI_CPU",
            "DistributedDataParallel",
        )
    assert "fsdp" not in finished.output.lower().replace(str(tmp_path).lower(), "")  # without a word


def check_failure(finished: Finished, folder: Path) -> None:
    """From the moment one rank raises, everything has ended within 60 s, and what it raised can be read."""
    assert finished.code not in (0, None), finished.output[-3000:]
    assert "RuntimeError: the PRM of rank 1 has gone away" in finished.output
    assert "came to the end" not in finished.output
    assert finished.ended_at - (folder / "failing" / "failing").stat().st_mtime < 60


@pytest.mark.parametrize("config", ["cpu_zero3"])
def test_a_failing_rank_stops_the_others_with_its_reason(two_ranks, config):
    launched = two_ranks(config)  # its last job fails
    check_failure(launched.finished, launched.folder)


@pytest.mark.slow
def test_a_failing_rank_stops_the_others_under_ddp(tmp_path):
    check_failure(launch("cpu_ddp", SCRIPT, str(tmp_path), "failing", port=free_port()), tmp_path)
