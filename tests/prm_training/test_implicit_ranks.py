"""An implicit PRM on two ranks with unequal parts of a batch against one process with all of it."""

import pytest

from tests.distributed.launch import free_port, launch, rank_results
from tests.prm_training.implicit_ranks import run
from tests.prm_training.test_implicit import ROLLOUTS
from tests.tiny import tiny_policy


def test_two_ranks_equal_one_process_and_each_other(tmp_path):
    folders = [tmp_path / "phi", tmp_path / "reference"]
    for seed, folder in enumerate(folders):
        tiny_policy(seed=seed).save_pretrained(folder)
    alone = run(folders, ROLLOUTS)
    assert alone["told"][0]["implicit_rows"] == 2  # the prompt that is always right is filtered out
    finished = launch("cpu_ddp", "tests/prm_training/implicit_ranks.py", str(tmp_path), port=free_port())
    first, second = rank_results(tmp_path, finished)
    assert first["weights"] == second["weights"]
    for got, wanted in zip(first["told"], alone["told"], strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    assert first["scores"] == pytest.approx(alone["scores"], abs=1e-5)
