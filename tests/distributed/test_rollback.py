"""What a rollback puts back, bit for bit: weights, critic and optimizer; one process, DDP and ZeRO-1, 2, 3."""

import pytest

from tests.distributed.conftest import DEADLINE, ROLLED_BACK
from tests.distributed.rollback_run import LAST, WASTED, roll_back

pytestmark = pytest.mark.timeout(DEADLINE + 300)


def check_rollback(result: dict, good: int) -> None:
    """The weights are the kept ones, the optimizer goes on from there, and the schedule goes on from where it was."""
    assert result["thrown_away"] > 1e-3 and result["restored"] == 0.0
    # Not bit for bit: a difference of weights over the ratio of two learning rates is rounded.
    assert result["update"] > 1e-3 and result["update_again"] < 1e-4
    assert result["rates"] == pytest.approx([1e-2 * (1 - update / LAST) for update in range(LAST)])
    assert good + WASTED + 1 < LAST and result["went_on"] > 1e-4


@pytest.mark.parametrize(("algorithm", "good"), [("grpo", 0), ("grpo", 2), ("ppo", 2), ("lora", 2), ("memory", 2)])
def test_in_one_process(tmp_path, algorithm, good):
    result = roll_back(algorithm, tmp_path, good)
    check_rollback(result, good)
    assert (algorithm == "ppo") == (result["critic_thrown_away"] is not None)
    if algorithm == "ppo":
        assert result["critic_thrown_away"] > 1e-3
    # 6 updates less the 2 that were thrown away.
    assert result["memory"].get("batches") == (4.0 if algorithm == "memory" else None)


def check_reuse(result: dict) -> None:
    """Four updates share a batch; the rollback after update 3 makes the next one sample, with the weights put back."""
    assert result["thrown_away"] > 1e-3 and result["restored"] == 0.0 and result["update"] > 1e-3
    assert result["generated"] == [0, 3, 4]


def test_reused_rollouts_in_one_process(tmp_path):
    check_reuse(roll_back("reuse", tmp_path, good=1))


@pytest.mark.parametrize(
    ("config", "wrapper"),
    [
        ("cpu_ddp", "DistributedDataParallel"),
        pytest.param("cpu_zero1", "DeepSpeedEngine", marks=pytest.mark.slow),
        pytest.param("cpu_zero2", "DeepSpeedEngine", marks=pytest.mark.slow),
        ("cpu_zero3", "DeepSpeedEngine"),
    ],
)
def test_on_two_ranks(two_ranks, config, wrapper):
    """GRPO, its PRM sharded under DeepSpeed; PPO with its critic; an adapter; and all of it by the guard's decision."""
    parts = ROLLED_BACK.split(",")
    first, second = ranks = two_ranks(config).results("rollback")
    for part in parts[:-1]:
        for rank in ranks:
            assert (rank[part]["world_size"], rank[part]["wrapper"]) == (2, wrapper)
            check_reuse(rank[part]) if part == "reuse-1" else check_rollback(rank[part], int(part[-1]))
        assert first[part]["digests"] == second[part]["digests"], part
        assert first[part]["memory"] == second[part]["memory"], part
        assert (
            first[part]["prm_sharded"] == second[part]["prm_sharded"] == ("zero" in config and part.startswith("grpo"))
        )
    assert first["memory-2"]["memory"]["batches"] == 4
    assert min(rank["ppo-2"]["critic_thrown_away"] for rank in ranks) > 1e-3
    check_guard(first["guard"], second["guard"])


def check_guard(first: dict, second: dict) -> None:
    """Both ranks go back to the beginning at update 4, though only the first one was told of a fall."""
    told, _ = first.pop("actions"), second.pop("actions")
    assert first == second
    assert told[0] == [4, "rollback"] and {action for _, action in told[1:]} == {"none"}
    assert [update for update, seen in enumerate(first["digests"], 1) if seen == first["begun"]] == [4]
    assert first["updates"] == LAST + 4 and len(set(first["digests"])) == LAST + 4
    assert first["scales"] == [1.0] * 4 + [0.25] * LAST
