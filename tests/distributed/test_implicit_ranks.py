"""An implicit PRM on two ranks with unequal parts of a batch against one process with all of it."""

import pytest

from tests.distributed.conftest import DEADLINE
from tests.distributed.implicit_run import models_in, run
from tests.prm_training.test_implicit import ROLLOUTS

pytestmark = pytest.mark.timeout(DEADLINE + 300)


@pytest.mark.parametrize("config", ["cpu_ddp"])
def test_two_ranks_equal_one_process_and_each_other(two_ranks, checkpoints, config):
    alone = run(models_in(checkpoints.implicit), ROLLOUTS)
    assert alone["told"][0]["implicit_rows"] == 2  # the prompt that is always right is filtered out
    first, second = two_ranks(config).results("implicit")
    assert first["weights"] == second["weights"]
    for got, wanted in zip(first["told"], alone["told"], strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    assert first["scores"] == pytest.approx(alone["scores"], abs=1e-5)
