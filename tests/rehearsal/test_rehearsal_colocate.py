"""The one-GPU recipe as its users run it: vLLM samples in the training process, with the weights being trained."""

import pytest

from tests.rehearsal.runner import metrics_of, rehearse
from tests.rehearsal.table import COLOCATE
from tests.rehearsal.test_rehearsal import (
    DEADLINE,
    logs_of_three_updates,
    rollouts_of_an_update,
    the_policy_moved_and_loads,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(2 * DEADLINE + 60)]


def test_the_one_gpu_recipe(made, tmp_path):
    pytest.importorskip("vllm")
    from tests.vllm.trained import ENGINE

    done = rehearse(COLOCATE, made, tmp_path, deadline=DEADLINE, **ENGINE)
    logs_of_three_updates(done)
    rollouts_of_an_update(done)
    the_policy_moved_and_loads(done)
    for row in metrics_of(done.folder):
        if "loss" in row:  # the engine computes in float32, the trainer under bfloat16 autocast
            assert row["sampling/sampling_logp_difference/max"] < 0.1
