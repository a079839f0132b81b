"""Two ranks train one PRM, share a sharded one, and build one toy world."""

import pytest
import torch

from rlhf_prm.prm import load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from rlhf_prm.toyworld.problems import ChainProblem
from tests.distributed.conftest import DEADLINE
from tests.distributed.prm_training_run import run

pytestmark = pytest.mark.timeout(DEADLINE + 300)
PROBLEM = ChainProblem(7, (("Add", 5), ("Minus", 6), ("Times", 3)))


@pytest.fixture(scope="module")
def alone(checkpoints, tmp_path_factory):
    """The PRM trained in one process: its folder and what the run gave."""
    folder = tmp_path_factory.mktemp("alone")
    return folder / "prm", run(str(checkpoints.language_model), folder, batch_size=8)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("cpu_ddp", "DistributedType.MULTI_CPU"),
        pytest.param("cpu_zero2", "DistributedType.DEEPSPEED", marks=pytest.mark.slow),
        ("cpu_zero3", "DistributedType.DEEPSPEED"),
    ],
)
def test_two_ranks_train_as_one_process_does(config, kind, alone, two_ranks):
    """The same losses, metrics and weights, under DDP and ZeRO."""
    folder, expected = alone
    launched = two_ranks(config)
    for rank in launched.results("prm_training"):
        assert (rank["world_size"], rank["type"]) == (2, kind)
        assert rank["losses"] == pytest.approx(expected["losses"], abs=1e-4)
        assert rank["metrics"] == pytest.approx(expected["metrics"], abs=1e-5)
    one, two = (
        Qwen2ForProcessRewardModel.from_pretrained(path).state_dict()
        for path in (folder, launched.folder / "prm_training" / "prm")
    )
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("config", ["cpu_zero3"])
def test_two_ranks_share_a_prm(two_ranks, config):
    assert two_ranks(config).results("sharded_prm") == [{"held": True}] * 2


@pytest.mark.parametrize("config", ["cpu_ddp"])
def test_two_ranks_build_one_world(two_ranks, config):
    ranks = two_ranks(config).results("world")
    assert [(rank["rank"], rank["of"]) for rank in ranks] == [(0, 2), (1, 2)]
    (path,) = {rank["prm"] for rank in ranks}
    scores = load_prm(path).score([PROBLEM.prompt], [PROBLEM.gold_steps])
    assert len(scores[0]) == len(PROBLEM.gold_steps)
