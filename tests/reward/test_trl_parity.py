"""``outcome`` is TRL's group scaling, bit for bit: against the advantages of a real GRPOTrainer."""

import pytest
import torch

import reward

GROUP, PROMPTS = 4, 6
REWARDS = [
    [1.0, 0.0, 0.0, 1.0],
    [0.1, 0.1, 0.1, 0.1],
    [None, 1.0, 0.0, 0.0],
    [None, None, 1.0, None],
    [None, None, None, None],
    [0.37, -1.9, 2.5, 1e-3],
]


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<eos>", *"0123456789"])}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="module")
def trl_advantages(tmp_path_factory) -> torch.Tensor:
    from datasets import Dataset
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    def table(prompts, **_):
        return [REWARDS[int(prompt)][i % GROUP] for i, prompt in enumerate(prompts)]

    class Recorder(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self.seen = {int(row["prompt"]): [] for row in inputs}
            for row, advantage in zip(inputs, output["advantages"], strict=True):
                self.seen[int(row["prompt"])].append(advantage)
            return output

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=12, **sizes, **heads))
    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=GROUP * PROMPTS,
        num_generations=GROUP,
        max_completion_length=2,
        max_steps=1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    prompts = Dataset.from_dict({"prompt": [str(i) for i in range(PROMPTS)]})
    trainer = Recorder(model, reward_funcs=table, args=args, train_dataset=prompts, processing_class=tokenizer())
    trainer.train()
    return torch.stack([torch.stack(trainer.seen[i]) for i in range(PROMPTS)])


def test_outcome_equals_a_real_grpo_trainer_bit_for_bit(trl_advantages):
    outcomes = torch.tensor([[float("nan") if o is None else o for o in group] for group in REWARDS]).flatten()
    mask = torch.tensor([[True, False], [True, True]]).repeat(GROUP * PROMPTS // 2, 1)
    rollouts = reward.StepRollouts(torch.rand(mask.shape), mask, mask.long(), outcomes, GROUP)
    advantages = reward.METHODS["outcome"](rollouts)
    assert torch.equal(advantages[:, 0], trl_advantages.flatten())
    assert torch.equal(advantages[:, 1], torch.where(mask[:, 1], trl_advantages.flatten(), 0))


@pytest.mark.parametrize("group", [1, 2, 3, 7, 8, 16, 64])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_outcome_repeats_trl_arithmetic_for_any_rewards(group, scale, missing):
    from trl.trainer.utils import nanstd

    generator = torch.Generator().manual_seed(group)
    rewards = torch.randn(50 * group, generator=generator) * scale
    rewards[torch.rand(50 * group, generator=generator) < missing] = float("nan")
    mean = torch.nanmean(rewards.view(-1, group), dim=1).repeat_interleave(group, dim=0)
    std = nanstd(rewards.view(-1, group), dim=1).repeat_interleave(group, dim=0)
    expected = torch.nan_to_num((rewards - mean) / (std + 1e-4), nan=0.0)
    assert torch.equal(reward.outcome_advantages(rewards, group), expected)
