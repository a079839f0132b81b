"""A refresh on two ranks against one process: the same PRM, equal on both, labelled once."""

import pytest

from tests.distributed.conftest import DEADLINE
from tests.distributed.refresh_run import run

pytestmark = pytest.mark.timeout(DEADLINE + 300)


@pytest.mark.parametrize("config", ["cpu_ddp"])
def test_two_ranks_equal_one_process_and_each_other(two_ranks, checkpoints, config, tmp_path):
    alone = run(str(checkpoints.prms / "small"), tmp_path)
    first, second = two_ranks(config).results("refresh")
    assert (first["world_size"], first["labelled"], second["labelled"]) == (2, 2, 0)
    assert first["weights"] == second["weights"] == first["loaded"] == second["loaded"]  # to the last bit
    assert first["told"] == second["told"]
    assert first["scores"] == pytest.approx(alone["scores"], abs=1e-4)
    for got, wanted in zip(first["told"], alone["told"], strict=True):
        assert got == pytest.approx(wanted, abs=0.02)
