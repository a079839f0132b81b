"""What the trainer tests train with: a tiny policy of random weights, data, a scorer, a verifier, CPU settings."""

import zlib
from typing import Any

from datasets import Dataset
from tokenizers import decoders
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, set_seed

from reward.verifier import Verdict
from rlhf_prm.rl.config import ProcessGRPOConfig
from tests.tiny_models import tiny_qwen2, word_tokenizer

WORDS = ["<pad>", "<eos>", "<unk>", "\n\n", *(f" {word}" for word in "abcdefg+-=0123456789")]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word with its blank before, one for the blank line."""
    tokenizer = word_tokenizer(WORDS, r"\n\n| \S", unk_token="<unk>", padding_side="left")
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    return tokenizer


def tiny_policy(seed: int = 0, **changes: Any) -> Qwen2ForCausalLM:
    set_seed(seed)
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings = wide | {"max_position_embeddings": 128, "tie_word_embeddings": True, "initializer_range": 0.3}
    return Qwen2ForCausalLM(tiny_qwen2(len(WORDS), **(settings | changes)))


def tiny_dataset(rows: int = 32, **columns: Any) -> Dataset:
    """Text prompts; the gold answer is one digit."""
    data = {
        "prompt": [f" {i % 10} + {i * 3 % 10} =" for i in range(rows)],
        "solution": [str(i % 10) for i in range(rows)],
    }
    return Dataset.from_dict(data | columns)


class HashScorer:
    """Scores that depend on the problem and on every step up to and including the scored one, in [0, 1]."""

    def score(self, problems: list[str], steps: list[list[str]]) -> list[list[float]]:
        return [
            [zlib.crc32(f"{problem}|{row[: k + 1]}".encode()) % 1000 / 999 for k in range(len(row))]
            for problem, row in zip(problems, steps, strict=True)
        ]


class DigitVerifier:
    """Right when the gold digit occurs in the completion."""

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        right = [solution in text for text, solution in zip(completions, solutions, strict=True)]
        return [Verdict(float(r), "correct" if r else "incorrect", None, 0.0) for r in right]


def digit_reward(completions, solution, **_: Any) -> list[float]:
    """The same as a TRL reward function, for TRL's own trainer."""
    return [verdict.reward for verdict in DigitVerifier().verify(_texts(completions), solution)]


def _texts(completions) -> list[str]:
    return [c if isinstance(c, str) else c[0]["content"] for c in completions]


def tiny_config(output_dir, config_class=ProcessGRPOConfig, **settings: Any):
    """CPU settings that train a tiny policy in seconds and log every update."""
    defaults = dict(
        output_dir=str(output_dir),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=20,
        max_steps=3,
        learning_rate=1e-3,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        beta=0.0,
        disable_tqdm=True,
    )
    if config_class is ProcessGRPOConfig:
        defaults["method"] = "immediate"  # pays from the first batch on; the default method has to earn its trust first
    return config_class(**(defaults | settings))
