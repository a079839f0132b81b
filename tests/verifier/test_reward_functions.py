"""The outcome terms as TRL reward functions, in TRL's own trainer too."""

import asyncio
import threading

import pytest

from reward import STATUSES, format_reward, length_penalty, outcome_reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"So it is \boxed{7}", 1.0),
        (r"So it is $\boxed{\frac{1}{2}}$.", 1.0),
        ("So \\[\n\\boxed{7}\n\\]\n", 1.0),
        (r"**\boxed{7}**", 1.0),
        (r"\boxed{7} is the answer", 0.0),
        (r"\boxed{7} \boxed{7}", 0.0),
        (r"\boxed{\boxed{7}}", 0.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{7", 0.0),
        ("7", 0.0),
    ],
)
def test_format_reward(text, reward):
    assert format_reward([text]) == [reward]
    assert format_reward(completions=[[{"role": "assistant", "content": text}]], prompts=[""]) == [reward]


def test_length_penalty_is_dapos_soft_overlong_punishment():
    penalty = length_penalty(free=4, limit=8)
    assert penalty(completion_ids=[[0] * n for n in (0, 4, 5, 6, 8, 20)], completions=[]) == [0, 0, -0.25, -0.5, -1, -1]
    assert penalty.__name__ == "length_penalty"
    with pytest.raises(ValueError, match="free=8"):
        length_penalty(free=8, limit=8)


async def async_outcome(completions, solution, **kwargs):
    """TRL runs coroutine reward functions on an event loop in a thread of its own."""
    async_outcome.threads.add(threading.current_thread())
    return await asyncio.to_thread(outcome_reward, completions, solution, **kwargs)


async_outcome.threads = set()


def test_async_reward_function_in_trl(tmp_path):
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    words = {token: index for index, token in enumerate(["<pad>", "<eos>", r"\boxed{", "}", "1", "2", "?"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    config = Qwen2Config(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    config.num_attention_heads = config.num_key_value_heads = 2
    trainer = GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            report_to=[],
            use_cpu=True,
            logging_steps=1,
        ),
        reward_funcs=[async_outcome, outcome_reward, format_reward, length_penalty(2, 6)],
        train_dataset=Dataset.from_dict({"prompt": ["1 ?", "2 ?"], "solution": ["1", "2"]}),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = [row for row in trainer.state.log_history if "rewards/outcome_reward/mean" in row]
    assert len(logged) == 2
    for row in logged:
        assert row["rewards/async_outcome/mean"] == row["rewards/outcome_reward/mean"]
        assert sum(row[f"verifier/{status}_frac"] for status in STATUSES) == 1
        assert row["rewards/length_penalty/mean"] <= 0
    assert threading.main_thread() not in async_outcome.threads and async_outcome.threads
