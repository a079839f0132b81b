"""One of two ranks that share a sharded PRM; run by test_zero3.py under torchrun. Prints a marker when all held."""

import math
import sys

import deepspeed
import torch
import torch.distributed as dist
from prm_rollouts import ragged

from rlhf_prm.prm import load_prm

problems, steps = ragged()
MINE = {0: [0, 1, 2, 3, 4, 5], 1: [2]}  # uneven: six forwards against one


def sharded_equals_whole(folder, rank: int, tolerance: float = 1e-6, **told) -> None:
    whole = load_prm(folder, **told)
    sharded = load_prm(folder, placement="zero3", max_batch_tokens=1, **told)
    parameters = list(sharded.placement.reader.module.parameters())
    assert all(p.numel() == 0 and p.ds_numel > 0 for p in parameters)  # nothing is resident whole
    expected = whole.score(problems, steps)
    for mine in (MINE, {0: [3], 1: []}, {0: [4, 1], 1: [5, 0, 2]}):
        rows = mine[rank]
        scores = sharded.score([problems[i] for i in rows], [steps[i] for i in rows])
        for row, i in zip(scores, rows, strict=True):
            assert all(math.isclose(a, b, abs_tol=tolerance) for a, b in zip(row, expected[i], strict=True)), (
                row,
                expected[i],
            )
    forwards = torch.tensor([sharded.stats.forwards])
    dist.all_reduce(forwards, op=dist.ReduceOp.MAX)
    assert sharded.stats.forwards == int(forwards) == 5 + 1 + 2  # the most distinct rollouts of a rank


def a_failure_stops_every_rank(folder, rank: int) -> None:
    sharded = load_prm(folder, placement="zero3")
    broken = [[3]] if rank == 0 else steps[:1]  # a step that is no text
    try:
        sharded.score(problems[:1], broken)
    except Exception as error:
        assert rank == 0 or "another rank" in str(error), error
    else:
        raise AssertionError("a rank went on alone")


def missing_weights_are_refused(folder) -> None:
    try:
        load_prm(folder, placement="zero3")
    except ValueError as error:
        assert "score.2.bias" in str(error), error
    else:
        raise AssertionError("a head was made up")


if __name__ == "__main__":
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # no two minutes of compiling at the first use
    deepspeed.init_distributed(dist_backend="gloo")
    rank = dist.get_rank()
    assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
    qwen, shepherd, policy, reference, headless = sys.argv[1:6]
    sharded_equals_whole(qwen, rank)
    sharded_equals_whole(shepherd, rank, family="math_shepherd")
    sharded_equals_whole(policy, rank, reference=reference)
    sharded_equals_whole(shepherd, rank, family="math_shepherd", dtype="bfloat16", tolerance=0.02)
    a_failure_stops_every_rank(qwen, rank)
    missing_weights_are_refused(headless)
    print(f"rank {rank}: all held", flush=True)
    dist.barrier()
