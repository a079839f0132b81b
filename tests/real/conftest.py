"""SmolLM2-135M-Instruct out of its wheel, fine-tuned for a few updates: built once, kept where a variable says."""

import os
from pathlib import Path

import pytest
import torch

from rlhf_prm.wordproblems import WordWorld, WordWorldSettings, build_world
from rlhf_prm.wordproblems.base_model import WHEEL, missing_packages

CACHE_VARIABLE = "RLHF_PRM_REAL_CACHE"  # a folder that keeps the stages between two calls of `make test-real`
SETTINGS = {
    **{
        "sft_updates": 24,
        "sft_batch": 4,
        "labelled_solutions": 16,
        "mc_completions": 2,
        "judge_votes": 1,
        "label_source": "consensus",
    },
    **{"train_problems": 64, "eval_problems": 32, "prm_updates": 4, "prm_batch": 8, "prm_eval_every": 2},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory) -> Path:
    kept = os.environ.get(CACHE_VARIABLE)
    return Path(kept) if kept else tmp_path_factory.mktemp("real")


@pytest.fixture(scope="session")
def real_settings() -> dict:
    model = os.environ.get("RLHF_PRM_REAL_MODEL", WHEEL)
    if model == WHEEL and missing_packages():
        pytest.skip(
            f"needs {' and '.join(missing_packages())} (make test-real installs them), or RLHF_PRM_REAL_MODEL: the "
            "folder or Hub name of an instruction-tuned model"
        )
    return {"model": model, **SETTINGS}


@pytest.fixture(scope="session")
def real_world(real_settings, real_cache) -> WordWorld:
    return build_world(WordWorldSettings(**real_settings), real_cache)
