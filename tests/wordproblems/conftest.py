"""A word-problem world around a random model of a few thousand parameters: everything but the learning is real."""

import pytest
import torch

from rlhf_prm.toyworld.tiny import tiny_random_models
from rlhf_prm.wordproblems import WordWorld, WordWorldSettings, build_world
from rlhf_prm.wordproblems.problems import draw_splits


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory) -> dict:
    problems = draw_splits(0, {"sft": 60})["sft"]
    texts = ["\n\n".join([problem.text, *problem.gold_steps]) for problem in problems]
    model, _ = tiny_random_models(texts, tmp_path_factory.mktemp("tiny"), seed=0)
    return {
        **{"model": str(model), "sft_updates": 30, "sft_batch": 8, "sft_learning_rate": 3e-3, "frozen_layers": 1},
        **{"labelled_solutions": 24, "mc_completions": 2, "judge_votes": 1, "train_problems": 32, "eval_problems": 24},
        **{"prm_updates": 4, "prm_batch": 4, "prm_eval_every": 2, "max_completion_length": 48},
    }


@pytest.fixture(scope="session")
def word_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def word_world(tiny_settings, word_cache) -> WordWorld:
    return build_world(WordWorldSettings(**tiny_settings, label_source="consensus"), word_cache)
