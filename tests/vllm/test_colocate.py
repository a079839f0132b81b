"""Training that samples with vLLM in the same processes, on CPU: weights in step; one process, and ZeRO-3 on two."""

import pytest

from tests.vllm.trained import trains_alone, trains_under_zero3

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_one_process(models, algorithm):
    trains_alone(models, algorithm)


def test_zero3_on_two_ranks_beside_a_sharded_prm(models):
    trains_under_zero3(models)
