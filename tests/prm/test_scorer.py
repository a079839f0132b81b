"""The batched scorer against one rollout at a time, and what it does with rollouts that cannot be scored."""

import pytest
import torch
from prm_checkpoints import qwen_prm
from prm_rollouts import ragged
from transformers import AutoTokenizer

from rlhf_prm.prm import StepScorer, load_prm
from rlhf_prm.prm.qwen2 import Qwen2ForProcessRewardModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def scorer(folder):
    return load_prm(folder)


def naive(folder, problem: str, steps: list[str]) -> list[float]:
    """One conversation as one string through the whole model; softmax at every <extra_0>."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen2ForProcessRewardModel.from_pretrained(folder).eval()
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{problem}<|im_end|>\n"
        f"<|im_start|>assistant\n{'<extra_0>'.join(steps)}<extra_0><|im_end|>\n"
    )
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        probabilities = model(ids).logits.softmax(-1)[0, :, 1]
    return probabilities[ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>")].tolist()


def test_is_a_step_scorer(scorer):
    assert isinstance(scorer, StepScorer)


@pytest.mark.parametrize("budget", [1, 150, 16384])
def test_equals_the_naive_reading_whatever_the_batch(folder, scorer, budget):
    problems, steps = ragged()
    expected = [naive(folder, p, s) for p, s in zip(problems, steps, strict=True)]
    scorer.max_batch_tokens = budget
    for order in (range(6), (5, 3, 1, 0, 2, 4), (4,)):
        got = scorer.score([problems[i] for i in order], [steps[i] for i in order])
        for scores, i in zip(got, order, strict=True):
            assert scores == pytest.approx(expected[i], abs=1e-5)
    spread = [score for scores in expected for score in scores]
    assert max(spread) - min(spread) > 0.1  # the model tells steps apart, so the test can fail
