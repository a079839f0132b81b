"""A refresh on two ranks against one process: the same PRM, equal on both, labelled once."""

import pytest

from tests.distributed.launch import free_port, launch, rank_results
from tests.prm_training.refresh_ranks import run


def test_two_ranks_equal_one_process_and_each_other(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "prm")
    tokenizer.save_pretrained(tmp_path / "prm")
    alone = run(str(tmp_path / "prm"), tmp_path / "alone")
    folder = tmp_path / "two"
    folder.mkdir()
    finished = launch(
        "cpu_ddp", "tests/prm_training/refresh_ranks.py", str(tmp_path / "prm"), str(folder), port=free_port()
    )
    first, second = rank_results(folder, finished)
    assert (first["world_size"], first["labelled"], second["labelled"]) == (2, 2, 0)
    assert first["weights"] == second["weights"] == first["loaded"] == second["loaded"]  # to the last bit
    assert first["told"] == second["told"]
    assert first["scores"] == pytest.approx(alone["scores"], abs=1e-4)
    for got, wanted in zip(first["told"], alone["told"], strict=True):
        assert got == pytest.approx(wanted, abs=0.02)
