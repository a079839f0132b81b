"""vLLM's importance-sampling correction with dense advantages, the sampler's log-probabilities made up."""

import pytest
import torch

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import WORDS, DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

SHIFT = (0.7, -0.4, 0.0, 2.0)  # log π_train − log π_sampler of the tokens, over and over; 2.0 is past the clip


class NoEngine:
    """In place of vLLM: the completions come from the rollout function."""

    def sync_weights(self) -> None:
        pass


def log_probs_of(model, prompt: list[int], completion: list[int]) -> list[float]:
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        scores = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return scores.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1).tolist()


def sampled_elsewhere(prompts: list[str], trainer) -> dict:
    """Completions of 3–6 tokens whose sampler gave each token a log-probability that differs by SHIFT."""
    prompt_ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
    separator = WORDS.index("\n\n")
    completions = [[5 + i % 7, 6, separator, 8 + i % 5, 9, 1][: 3 + i % 4] for i in range(len(prompts))]
    logprobs = [
        [value - SHIFT[t % 4] for t, value in enumerate(log_probs_of(trainer.model, prompt, completion))]
        for prompt, completion in zip(prompt_ids, completions, strict=True)
    ]
    return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": logprobs}


@pytest.mark.parametrize(
    ("trainer_class", "config_class", "settings"),
    [
        (ProcessGRPOTrainer, ProcessGRPOConfig, {"method": "immediate"}),
        (ProcessPPOTrainer, ProcessPPOConfig, {"num_generations": 1, "critic": "detached"}),
    ],
    ids=["grpo", "ppo"],
)
def test_every_token_is_weighted_by_its_own_ratio(tmp_path, trainer_class, config_class, settings):
    """The policy's gradient is that of −Σ min(exp(shift), 3)·A_t·log π(a_t) / tokens, with A per token."""
    config = tiny_config(
        tmp_path,
        config_class,
        max_steps=1,
        max_grad_norm=0.0,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        vllm_importance_sampling_mode="token_truncate",
        **settings,
    )
    trainer = trainer_class(
        model=tiny_policy(),
        args=config,
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        rollout_func=sampled_elsewhere,
    )
    trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, NoEngine(), -1
    batches, prepare = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batches.append(prepare(inputs)) or batches[-1]
    trainer.train()
    batch, mask = batches[0], batches[0]["completion_mask"].bool()
    ratio = torch.tensor(SHIFT).exp().clamp(max=config.vllm_importance_sampling_clip_max).repeat(2)[: mask.size(1)]
    assert config.vllm_importance_sampling_clip_max == 3.0 and ratio.max() == 3.0
    torch.testing.assert_close(batch["importance_sampling_ratio"][mask], ratio.expand(mask.shape)[mask])
    assert batch["advantages"].shape == mask.shape and batch["advantages"].std(dim=1).max() > 0.01  # dense indeed

    policy = tiny_policy()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    log_probs = policy(ids, attention_mask=attention).logits.log_softmax(-1)[:, :-1]
    log_probs = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -mask.size(1) :]
    (-(ratio * batch["advantages"] * log_probs)[mask].sum() / mask.sum()).backward()
    for name, parameter in policy.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(trainer.model.get_parameter(name).detach(), expected, atol=1e-5, rtol=1e-4, msg=name)
