"""Settings of sampling, rewards, reference and precision: whole runs, against TRL's trainer or each other."""

import pytest
import torch
from accelerate.parallelism_config import ParallelismConfig
from trl import GRPOConfig, GRPOTrainer

from rlhf_prm.rl.config import ProcessGRPOConfig
from rlhf_prm.rl.critic import Critic, SyncReferenceToPolicy
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import DigitVerifier, HashScorer, digit_reward, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def shortness(completions, **_) -> list[float]:
    return [1.0 / (1 + len(text)) for text in completions]


def losses(trainer) -> list[tuple[float, float]]:
    return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]


# Settings that do not meet stand together, so that a few runs cover all of them.
TOGETHER = {
    "sampling": dict(
        temperature=0.7,
        top_p=0.9,
        top_k=12,
        min_p=0.02,
        repetition_penalty=1.1,
        generation_kwargs={"no_repeat_ngram_size": 4},
        cache_implementation="dynamic",
        pad_to_multiple_of=8,
        shuffle_dataset=False,
    ),
    "ratios": dict(
        num_iterations=2,
        generation_batch_size=16,
        delta=1.5,
        epsilon=0.1,
        epsilon_high=0.3,
        off_policy_mask_threshold=1e-4,
        vllm_importance_sampling_correction=False,
    ),
    "sequence ratios": dict(num_iterations=2, importance_sampling_level="sequence", loss_type="grpo"),
    "entropy": dict(
        top_entropy_quantile=0.4,
        use_adaptive_entropy=True,
        entropy_coef=0.01,
        entropy_coef_min=0.0,
        entropy_coef_max=0.5,
        entropy_coef_delta=0.1,
        entropy_target=9.0,
        mask_truncated_completions=True,
    ),
    "reference": dict(beta=0.1, sync_ref_model=True, ref_model_mixup_alpha=0.5, ref_model_sync_steps=1),
    "rewards": dict(reward_weights=[0.7, 2.0], num_iterations=2, beta=0.05, use_bias_correction_kl=False),
    "precision": dict(bf16=True, cast_lm_head_to_fp32=True, disable_dropout=True, gradient_checkpointing=True),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_outcome_equals_trl(tmp_path, name):
    """Method "outcome": losses, gradient norms and weights of TRL's own trainer, to the last bit.

    One ratio per sequence is multiplied with (B, T) here and with (B, 1) there, which differs in the last bits.
    """
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if name == "sequence ratios" else {"rtol": 0, "atol": 0}
    settings = TOGETHER[name] | {"max_steps": 3}
    tiny_policy().save_pretrained(tmp_path / "policy")  # by name, for the reference
    policy = str(tmp_path / "policy")
    extra = [shortness] if name == "rewards" else []
    common = dict(train_dataset=tiny_dataset(), processing_class=tiny_tokenizer())
    ours = ProcessGRPOTrainer(
        model=policy,
        args=tiny_config(tmp_path / "ours", method="outcome", **settings),
        verifier=DigitVerifier(),
        reward_funcs=extra,
        **common,
    )
    ours.train()  # before the other is built: both seed the same generator
    theirs = GRPOTrainer(
        model=policy,
        args=tiny_config(tmp_path / "theirs", GRPOConfig, **settings),
        reward_funcs=[digit_reward, *extra],
        **common,
    )
    theirs.train()
    assert len(losses(ours)) == 3 and any(norm > 0 for _, norm in losses(ours))
    torch.testing.assert_close(torch.tensor(losses(ours)), torch.tensor(losses(theirs)), **tolerance)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, **tolerance)


def run(trainer_class, config_class, folder, **settings):
    trainer = trainer_class(
        model=tiny_policy(),
        args=tiny_config(folder, config_class, max_steps=2, **settings),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    batches, prepare = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batches.append(prepare(inputs)) or batches[-1]
    trainer.train()
    return trainer, batches


KINDS = {
    "grpo": (ProcessGRPOTrainer, ProcessGRPOConfig, {"method": "immediate"}),
    "ppo": (ProcessPPOTrainer, ProcessPPOConfig, {"num_generations": 1, "critic_learning_rate": 1e-3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(tmp_path, kind):
    trainer_class, config_class, settings = KINDS[kind]
    plain, _ = run(trainer_class, config_class, tmp_path / "a", **settings)
    padded, batches = run(trainer_class, config_class, tmp_path / "b", pad_to_multiple_of=16, **settings)
    assert batches[0]["advantages"].size(1) == 32 and batches[0]["completion_mask"].sum(1).max() <= 20
    for mine, other in zip(losses(plain), losses(padded), strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_completions_teach_nothing(tmp_path, kind):
    trainer_class, config_class, settings = KINDS[kind]
    _, batches = run(trainer_class, config_class, tmp_path, mask_truncated_completions=True, **settings)
    mask = batches[0]["completion_mask"].bool()
    truncated = ~mask.any(1)
    assert 0 < truncated.sum() < len(truncated)
    assert batches[0]["advantages"][truncated].eq(0).all() and batches[0]["advantages"][mask].abs().max() > 0
    if kind == "ppo":  # whitened over what is left
        assert batches[0]["advantages"][mask].mean().abs() < 1e-5
        assert batches[0]["advantages"][mask].std().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale_rewards": "none"}, "scale_rewards: got 'none'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation: got"),
        ({"remove_unused_columns": True}, "remove_unused_columns: got True, expected False"),
        ({"use_transformers_continuous_batching": True, "bf16": True}, "casts the trained weights"),
        ({"use_transformers_paged": True, "bf16": True}, "casts the trained weights"),
        ({"vllm_importance_sampling_mode": "token"}, "vllm_importance_sampling_mode: got 'token'.*sequence_mask"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"parallelism_config": ParallelismConfig(cp_size=2)}, "does not support sequence-dim parallelism"),
        ({"parallelism_config": ParallelismConfig(sp_size=2)}, "does not support sequence-dim parallelism"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.filterwarnings("ignore:.use_transformers_paged:FutureWarning")
def test_refused_with_the_settings(tmp_path, settings, message):
    for config_class, others in ((ProcessGRPOConfig, {}), (ProcessPPOConfig, {"num_generations": 1})):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            tiny_config(tmp_path, config_class, **(others | settings))


class Processor:
    """Enough of a processor to be one."""


def test_ppo_refuses_images_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf_prm.rl.ppo.ProcessorMixin", Processor)
    with pytest.raises(ValueError, match="processor of images and text, expected a tokenizer"):
        ProcessPPOTrainer(
            model="no/such/model",
            args=tiny_config(tmp_path, ProcessPPOConfig, num_generations=1),
            train_dataset=tiny_dataset(8),
            processing_class=Processor(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )


def test_ppo_samples_and_measures_its_distance_at_one_temperature(tmp_path):
    """The settings of sampling and of the reference in PPO: the KL in the reward is 0 before the first update."""
    tiny_policy().save_pretrained(tmp_path / "policy")
    settings = TOGETHER["sampling"] | TOGETHER["reference"] | {"mask_truncated_completions": True}
    trainer = ProcessPPOTrainer(
        model=str(tmp_path / "policy"),
        args=tiny_config(tmp_path, ProcessPPOConfig, num_generations=1, max_steps=2, **settings),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    start = [parameter.detach().clone() for parameter in trainer.ref_model.parameters()]
    trainer.train()
    first, second = [log["kl"] for log in trainer.state.log_history if "kl" in log][:2]
    assert abs(first) < 1e-6 < abs(second)
    assert any(not torch.equal(old, now) for old, now in zip(start, trainer.ref_model.parameters(), strict=True))


def test_ppo_moves_the_reference_towards_the_policy_alone():
    """By hand: ¾ of the reference and ¼ of the policy; the critic has no counterpart and stays out."""
    policy, reference = tiny_policy(0), tiny_policy(1)
    old = reference.lm_head.weight.detach().clone()
    policy.critic = Critic(32, None)
    SyncReferenceToPolicy.sync_target_model(policy, reference, 0.25)
    torch.testing.assert_close(reference.lm_head.weight, 0.75 * old + 0.25 * policy.lm_head.weight)
