"""One of two ranks that share a sharded PRM: equal scores, uneven work, failures that stop every rank."""

import math
from pathlib import Path

import torch
import torch.distributed as dist

from rlhf_prm.prm import load_prm
from tests.prm.prm_rollouts import ragged

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


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: a folder that holds the checkpoints."""
    prms, rank = Path(parts[0]), dist.get_rank()
    assert dist.get_world_size() == 2 and dist.get_backend() == "gloo"
    sharded_equals_whole(prms / "qwen", rank)
    sharded_equals_whole(prms / "shepherd", rank, family="math_shepherd")
    sharded_equals_whole(prms / "policy", rank, reference=prms / "reference")
    sharded_equals_whole(prms / "shepherd", rank, family="math_shepherd", dtype="bfloat16", tolerance=0.02)
    a_failure_stops_every_rank(prms / "qwen", rank)
    missing_weights_are_refused(prms / "headless")
    return {"held": True}
