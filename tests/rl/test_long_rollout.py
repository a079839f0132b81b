"""A rollout of 32k tokens and 300 steps through the whole loop on a CPU."""

import random
import time

import pytest
import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM, set_seed

from reward import MathVerifier
from rlhf_prm.guard.guard import HackGuard
from rlhf_prm.prm import load_prm
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.tokenizer_checks import saved_tokenizer
from rlhf_prm.toyworld.tiny import tiny_random_models
from tests.tiny import tiny_config
from tests.tiny_models import tiny_qwen2

TOKENS, STEPS, THINKING = 32_768, 300, 290
PROBLEM = "What is 3 + 4?"
TEXT = "So the sum of these numbers must be divided by their product before we can compare it with that remainder."
WORDS = TEXT.rstrip(".").split()


def completion(tokenizer, answer: int, draw: random.Random) -> list[int]:
    """290 paragraphs of thinking and 10 of an answer, exactly so many tokens."""

    def paragraph(tokens: int) -> list[int]:
        ids = tokenizer(" ".join(draw.choices(WORDS, k=tokens)), add_special_tokens=False)["input_ids"]
        return ids[:tokens]

    blank, closing, last = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("\n\n", "\n\n</think>\n\n", f"The answer is \\boxed{{{answer}}}.")
    )
    ids: list[int] = []
    left = TOKENS - len(closing) - len(last) - len(blank) * (STEPS - 3)
    sizes = [left // (STEPS - 2)] * (STEPS - 2)
    sizes[0] += left - sum(sizes)
    for number, size in enumerate(sizes):
        ids += paragraph(size) + (closing if number == THINKING - 2 else blank)
    return ids + last


@pytest.mark.slow
def test_32k_tokens_and_300_steps_through_the_whole_loop(tmp_path):
    policy_path, prm_path = tiny_random_models([PROBLEM, TEXT, "\n\n"], tmp_path / "models", seed=0)
    tokenizer, draw = saved_tokenizer(policy_path, padding_side="left"), random.Random(0)
    written = [completion(tokenizer, answer, draw) for answer in (7, 8)]

    def rollouts(prompts, trainer):
        assert [len(ids) for ids in written] == [TOKENS] * 2
        return {
            "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt in prompts],
            "completion_ids": written,
            "logprobs": [[0.0] * TOKENS for _ in prompts],
        }

    set_seed(0)
    scorer = load_prm(prm_path, past_context="window")
    with MathVerifier() as verifier:
        trainer = ProcessGRPOTrainer(
            model=Qwen2ForCausalLM(tiny_qwen2(len(tokenizer), num_hidden_layers=1, max_position_embeddings=40_000)),
            args=tiny_config(
                tmp_path / "run",
                per_device_train_batch_size=2,
                num_generations=2,
                max_steps=1,
                max_completion_length=TOKENS,
                log_completions=True,
                think_tags=["<think>", "</think>"],
                think_opened=True,
                verifier_reads="answer",
            ),
            train_dataset=Dataset.from_dict({"prompt": [PROBLEM] * 2, "solution": ["7"] * 2}),
            processing_class=tokenizer,
            step_scorer=scorer,
            verifier=verifier,
            rollout_func=rollouts,
            callbacks=[guard := HackGuard()],
        )
        guard.trainer = trainer
        outputs, theirs = [], trainer._generate_and_score_completions
        trainer._generate_and_score_completions = lambda inputs: outputs.append(theirs(inputs)) or outputs[-1]
        begun = time.thread_time()
        trainer.train()
    print(f"one update: {time.thread_time() - begun:.1f} s of this thread; {trainer.scoring.seconds}")
    batch, log = trainer.last_rollouts, trainer.state.log_history[0]
    assert batch.rollouts.num_steps.tolist() == [STEPS] * 2
    assert batch.rollouts.token_counts.sum(1).tolist() == [TOKENS] * 2
    assert [row.status for row in batch.rows] == ["correct", "incorrect"]
    assert sum("</think>" in step for row in batch.rows for step in row.steps) == 2
    assert log["process/unscored_frac"] == 0 and scorer.stats.windowed_steps > STEPS
    lengths = batch.rollouts.step_lengths
    for row, counts, expected in zip(outputs[0]["advantages"], lengths, batch.step_advantages, strict=True):
        torch.testing.assert_close(row, expected.repeat_interleave(counts))
    assert log["grad_norm"] > 0 and log["hack/suffix_repetition"] < 1
    assert (tmp_path / "run" / "completions").exists()
