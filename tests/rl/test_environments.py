"""Tokens that an environment or a tool wrote are refused; a rollout_func of the policy's own tokens works."""

import pytest

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import WORDS, DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

SEVEN = [WORDS.index(word) for word in (" a", " =", " 7", "<eos>")]


def trainer_of(algorithm, folder, **arguments):
    if algorithm == "grpo":
        trainer_class, config = ProcessGRPOTrainer, tiny_config(folder, max_steps=2)
    else:
        trainer_class = ProcessPPOTrainer
        config = tiny_config(folder, ProcessPPOConfig, max_steps=2, num_generations=1)
    return trainer_class(
        model=tiny_policy(),
        args=config,
        train_dataset=tiny_dataset(8, solution=["7"] * 8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        **arguments,
    )


def rollouts(prompts, trainer, **more):
    """Every completion says 7."""
    return {
        "prompt_ids": [trainer.processing_class(prompt)["input_ids"] for prompt in prompts],
        "completion_ids": [SEVEN for _ in prompts],
        "logprobs": None,
        **more,
    }


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: one.
        b: the other.
    """
    return a + b


class Calculator:
    """An environment of TRL's: it says the answer."""

    def reset(self, **_):
        return "7"


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize(("name", "value"), [("tools", [add]), ("environment_factory", Calculator)])
def test_tools_and_environments_are_refused_at_once(tmp_path, algorithm, name, value):
    with pytest.raises(ValueError, match=f"{name}: got .*expected none.*as if the policy had written it.*trl"):
        trainer_of(algorithm, tmp_path, **{name: value})


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_rollout_func_with_tokens_of_an_environment_is_refused(tmp_path, algorithm):
    """The 7 is the environment's; before, every such rollout was correct."""

    def with_environment(prompts, trainer):
        return rollouts(prompts, trainer, env_mask=[[1, 1, 0, 1] for _ in prompts])

    trainer = trainer_of(algorithm, tmp_path, rollout_func=with_environment)
    with pytest.raises(ValueError, match=r"rollout_func: got an env_mask.*expected only tokens of the policy"):
        trainer.train()
    assert trainer.last_rollouts is None


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_rollout_func_of_the_policys_tokens_works(tmp_path, algorithm):
    trainer = trainer_of(algorithm, tmp_path, rollout_func=rollouts)
    trainer.train()
    assert trainer.state.global_step == 2
    assert [row.status for row in trainer.last_rollouts.rows] == ["correct"] * 8
    assert trainer.last_rollouts.rollouts.token_counts.sum(1).tolist() == [4] * 8
