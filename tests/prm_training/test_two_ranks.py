"""PRMTrainer on two ranks against one process: the same losses, metrics and weights, under DDP and ZeRO."""

import socket

import pytest
import torch

from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel
from tests.distributed.launch import launch, rank_results
from tests.prm_training.two_ranks import run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("cpu_ddp", "DistributedType.MULTI_CPU"),
        pytest.param("cpu_zero2", "DistributedType.DEEPSPEED", marks=pytest.mark.slow),
        pytest.param("cpu_zero3", "DistributedType.DEEPSPEED", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_equal_one_process(config, kind, language_model_folder, tmp_path):
    alone = run(str(language_model_folder), tmp_path / "alone", batch_size=8)
    folder = tmp_path / "two"
    folder.mkdir()
    port = free_port()
    finished = launch(config, "tests/prm_training/two_ranks.py", str(language_model_folder), str(folder), port=port)
    for rank in rank_results(folder, finished):
        assert (rank["world_size"], rank["type"]) == (2, kind)
        assert rank["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        assert rank["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)
    one, two = (
        Qwen2ForProcessRewardModel.from_pretrained(path / "prm").state_dict() for path in (tmp_path / "alone", folder)
    )
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
