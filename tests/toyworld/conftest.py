"""One small world for the whole test session."""

import pytest
import torch

from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.world import ToyWorld, build_world


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> dict:
    """Settings of a world that takes seconds to build."""
    problems = {"train_problems": 40, "eval_problems": 200, "labelled_solutions": 100, "mc_completions": 2}
    return {**problems, "sft_updates": 60, "sft_batch": 32, "prm_updates": 10, "prm_batch": 16}


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_world(small, cache_root) -> ToyWorld:
    return build_world(ToyWorldSettings(**small), cache_root)
