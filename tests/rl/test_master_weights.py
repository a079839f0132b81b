"""Low-precision weights without float32 masters hardly train: the size of it, and that it is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import LoraConfig

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.master_weights import (
    check_master_weights,
    has_master_weights,
    one_dtype_for_zero3,
    refuse_deepspeeds_own,
    refuse_low_precision,
    refuse_other_precision,
)
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"


def share_changed(dtype: torch.dtype, learning_rate: float, updates: int = 5) -> float:
    """Share of the weights of N(0, 0.02) matrices that differ after AdamW on gradients of changing size."""
    torch.manual_seed(0)
    weights = torch.nn.Parameter((torch.randn(256, 256) * 0.02).to(dtype))
    before = weights.detach().clone()
    optimizer = torch.optim.AdamW([weights], lr=learning_rate, weight_decay=0.0)
    for _ in range(updates):
        weights.grad = torch.randn(256, 256).to(dtype)
        optimizer.step()
    return (weights.detach() != before).float().mean().item()


def test_what_float32_weights_are_for():
    """At 1e-6 in bfloat16 a few weights in a hundred move; in float32, and in bfloat16 at 1e-4, nearly all do."""
    assert share_changed(torch.bfloat16, 1e-6) < 0.03
    assert share_changed(torch.float32, 1e-6) > 0.99
    assert share_changed(torch.bfloat16, 1e-4) > 0.8


def grpo(folder, policy, peft_config=None, **settings):
    return ProcessGRPOTrainer(
        model=policy,
        args=tiny_config(folder, method="outcome", **settings),
        train_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        verifier=DigitVerifier(),
        peft_config=peft_config,
    )


def ppo(folder, policy, **settings):
    return ProcessPPOTrainer(
        model=policy,
        args=tiny_config(folder, ProcessPPOConfig, num_generations=1, **settings),
        train_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trainer", [grpo, ppo])
def test_trainers_refuse_what_would_not_train(tmp_path, trainer, dtype):
    with pytest.raises(ValueError, match=r"(?s)learning_rate: got 1e-06 for \w+16 weights.*dtype: float32"):
        trainer(tmp_path, tiny_policy().to(dtype), learning_rate=1e-6)


def test_the_critic_of_a_bfloat16_policy_is_float32(tmp_path):
    trainer = ppo(tmp_path, tiny_policy().to(torch.bfloat16), learning_rate=1e-3, critic_learning_rate=1e-5)
    assert {p.dtype for p in trainer.model.critic.parameters()} == {torch.float32}
    assert trainer.model.lm_head.weight.dtype == torch.bfloat16
    trainer.train()
    assert len(trainer.state.log_history) > 3 and trainer.model.critic.head.weight.abs().max() > 0


def test_what_does_train_is_taken(tmp_path):
    """Float32 weights, frozen bfloat16 weights under float32 adapters, a learning rate that bfloat16 can hold."""
    grpo(tmp_path, tiny_policy(), learning_rate=1e-6)
    adapters = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = grpo(tmp_path, tiny_policy().to(torch.bfloat16), peft_config=adapters, learning_rate=1e-6)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    grpo(tmp_path, tiny_policy().to(torch.bfloat16), learning_rate=1e-3)


def test_a_quantized_model_is_warned_about(tmp_path):
    """TRL itself keeps QLoRA's adapters in bfloat16."""
    model = tiny_policy().to(torch.bfloat16)
    model.is_loaded_in_4bit = True
    with pytest.warns(UserWarning, match="adapters on a quantized model: learning_rate: got 1e-05"):
        check_master_weights(model, tiny_config(tmp_path), 1e-5)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Training arguments as a launcher would leave them."""
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)

    def made(deepspeed: dict | None = None, fsdp: dict | None = None, mixed_precision: str = "no"):
        args = tiny_config(tmp_path)
        args.deepspeed_plugin = None if deepspeed is None else SimpleNamespace(deepspeed_config=deepspeed)
        args.fsdp_plugin_args, args.mixed_precision = fsdp, mixed_precision
        return args

    return made


def test_who_keeps_float32_copies(arguments, monkeypatch):
    assert not has_master_weights(arguments(mixed_precision="bf16"))  # DDP and one process, autocast or not
    assert has_master_weights(arguments(deepspeed={"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}))
    without = {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}
    assert not has_master_weights(arguments(deepspeed=without))
    assert has_master_weights(arguments(fsdp={"fsdp_version": 2}, mixed_precision="bf16"))
    assert not has_master_weights(arguments(fsdp={"fsdp_version": 2}))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert has_master_weights(arguments(mixed_precision="bf16"))


def test_by_name_before_anything_is_loaded(arguments):
    with pytest.raises(ValueError, match="bfloat16 weights without float32"):
        refuse_low_precision("bfloat16", arguments(), 1e-6)
    for dtype, rate in (("float32", 1e-6), ("auto", 1e-6), (None, 1e-6), ("bfloat16", 1e-4), ("bfloat16", 0.0)):
        refuse_low_precision(dtype, arguments(), rate)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_step_float32(path):
    """Weights in bfloat16 only where the command at the top of the file starts DeepSpeed, which keeps copies."""
    settings = yaml.safe_load(path.read_text())
    command = path.read_text().splitlines()[0]
    if settings.get("dtype", "float32") != "float32":
        assert "zero" in command, f"{path.name}: dtype {settings['dtype']} needs ZeRO, the command is {command}"


def test_deepspeed_is_launched_in_the_precision_of_the_settings(arguments, monkeypatch, recwarn):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    args = arguments(deepspeed={})
    args.bf16, args.fp16 = False, False
    with pytest.raises(ValueError, match=r"bf16: got false in the settings and .* launch file; .* add --bf16 true"):
        refuse_other_precision(args)
    args.bf16 = True
    refuse_other_precision(args)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    args.bf16 = False
    refuse_other_precision(args)
    assert not recwarn.list
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    args.deepspeed_plugin = None
    with pytest.warns(UserWarning, match="the arithmetic is done in bf16"):
        refuse_other_precision(args)


@pytest.mark.parametrize("section", ["optimizer", "scheduler"])
def test_deepspeeds_own_optimizer_and_schedule_are_refused(arguments, section):
    """They know no group of the critic: it would train at the policy's rate, and a warm-up hold all or nothing."""
    with pytest.raises(ValueError, match=rf"critic_learning_rate: got a DeepSpeed config with a section '{section}'"):
        refuse_deepspeeds_own(arguments(deepspeed={section: {}}), "critic_learning_rate")
    refuse_deepspeeds_own(arguments(deepspeed={"bf16": {}}), "critic_learning_rate")
    refuse_deepspeeds_own(arguments(), "critic_learning_rate")


def test_what_zero3_has_partitioned_gives_the_rest_its_dtype():
    """A head made after the weights were partitioned in bfloat16: DeepSpeed fails on two dtypes in one buffer."""
    trunk, head = torch.nn.Linear(3, 3).to(torch.bfloat16), torch.nn.Linear(3, 1)
    model = torch.nn.ModuleDict({"trunk": trunk, "head": head})
    value = head.weight.detach().clone()
    one_dtype_for_zero3(model)  # nothing is partitioned
    assert head.weight.dtype == torch.float32
    for index, parameter in enumerate(trunk.parameters()):
        parameter.ds_id = index
    one_dtype_for_zero3(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(head.weight.float(), value, atol=0, rtol=2**-8)
