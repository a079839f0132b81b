"""ProcessPPOTrainer: one update against autograd from scratch, its rewards, its learning rates, its checkpoints."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from reward import SHAPINGS
from rlhf_prm.rl.critic import CRITIC_FILE
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def ppo_trainer(folder, *, model=None, scorer=HashScorer, trainer_arguments=None, **settings):
    defaults = dict(num_generations=1, critic_learning_rate=1e-3)
    return ProcessPPOTrainer(
        model=model or tiny_policy(),
        args=tiny_config(folder, ProcessPPOConfig, **(defaults | settings)),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer() if scorer else None,
        verifier=DigitVerifier(),
        **(trainer_arguments or {}),
    )


def recorded(trainer) -> tuple[list[dict], list[dict]]:
    """The batches that were generated and the inputs of each loss."""
    batches, losses = [], []
    prepare, compute = trainer._generate_and_score_completions, trainer._compute_loss

    def prepare_and_keep(inputs):
        batches.append(prepare(inputs))
        return batches[-1]

    def compute_and_keep(model, inputs):
        losses.append(inputs)
        return compute(model, inputs)

    trainer._generate_and_score_completions, trainer._compute_loss = prepare_and_keep, compute_and_keep
    return batches, losses


def by_hand(trainer, batch) -> dict[str, torch.Tensor]:
    """Rewards, advantages and returns of a batch by plain loops, critic at its start (all values 0)."""
    scored, args = trainer.last_rollouts, trainer.args
    lengths, mask = scored.rollouts.step_lengths, batch["completion_mask"].bool()
    shaped = SHAPINGS[args.shaping](scored.rollouts.step_scores, scored.rollouts.step_mask)
    advantages = torch.zeros(mask.shape)
    for row in range(len(mask)):
        rewards, position = [0.0] * int(mask[row].sum()), -1
        for k in range(int(scored.rollouts.step_mask[row].sum())):
            position += int(lengths[row, k])
            rewards[position] += args.process_weight * shaped[row, k].item()
        rewards[-1] += scored.rollouts.outcome_rewards[row].item()
        following = 0.0
        for t in reversed(range(len(rewards))):
            following = rewards[t] + args.gamma * args.lam * following
            advantages[row, t] = following
    returns = advantages.clone()
    real = advantages[mask]
    white = torch.where(mask, (advantages - real.mean()) / (real.std() + 1e-8), 0)
    return {"returns": returns, "advantages": white}


@pytest.mark.parametrize("settings", [{"gamma": 0.97, "lam": 0.9}, {}], ids=["gae", "rewards_to_go"])
def test_rewards_advantages_and_returns(tmp_path, settings):
    trainer = ppo_trainer(tmp_path, max_steps=1, **settings)
    batches, losses = recorded(trainer)
    trainer.train()
    expected = by_hand(trainer, batches[0])
    assert expected["returns"].abs().max() > 0.1
    torch.testing.assert_close(batches[0]["returns"], expected["returns"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batches[0]["advantages"], expected["advantages"], atol=1e-5, rtol=1e-5)
    assert batches[0]["old_values"].eq(0).all() and len(losses) == 1


@pytest.mark.parametrize("critic", ["own", "shared", "detached"])
def test_one_update_equals_autograd_from_scratch(tmp_path, critic):
    """A copy of the models, the textbook loss on the recorded batch, SGD by hand: the same weights."""
    trainer = ppo_trainer(
        tmp_path,
        max_steps=1,
        critic=critic,
        optim="sgd",
        learning_rate=0.3,
        critic_learning_rate=0.2,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        value_weight=0.7,
    )
    torch.nn.init.normal_(trainer.model.critic.head.weight)  # so that the value loss reaches the trunk
    policy = tiny_policy()
    head = trainer.model.critic.head.weight.detach().clone().requires_grad_()
    bias = torch.zeros(1, requires_grad=True)
    trunk = tiny_policy().model if critic == "own" else policy.model
    batches, _ = recorded(trainer)
    trainer.train()
    batch, scratch = batches[0], {"policy": policy, "trunk": trunk}

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    mask, width = batch["completion_mask"].bool(), batch["completion_ids"].size(1)
    output = policy(input_ids=ids, attention_mask=attention, output_hidden_states=True)
    log_probs = output.logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -width:]
    hidden = output.hidden_states[-1]
    if critic == "own":
        hidden = trunk(input_ids=ids, attention_mask=attention).last_hidden_state
    elif critic == "detached":
        hidden = hidden.detach()
    values = (hidden @ head.T + bias).squeeze(-1)[:, -width - 1 : -1]
    torch.testing.assert_close(values[mask], batch["old_values"][mask], atol=1e-5, rtol=1e-4)
    ratio = torch.exp(log_probs - log_probs.detach())
    clipped = ratio.clamp(0.8, 1.2)
    policy_loss = -torch.min(ratio * batch["advantages"], clipped * batch["advantages"])[mask].mean()
    value_loss = 0.5 * ((values - batch["returns"]) ** 2)[mask].mean()
    (policy_loss + 0.7 * value_loss).backward()

    with torch.no_grad():
        for name, parameter in scratch["policy"].named_parameters():
            expected = parameter - 0.3 * parameter.grad
            torch.testing.assert_close(trainer.model.get_parameter(name), expected, atol=1e-5, rtol=1e-4, msg=name)
        if critic == "own":
            for name, parameter in trunk.named_parameters():
                expected = parameter - 0.2 * parameter.grad
                got = trainer.model.critic.trunk.get_parameter(name)
                torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4, msg=name)
        torch.testing.assert_close(trainer.model.critic.head.weight, head - 0.2 * head.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(trainer.model.critic.head.bias, bias - 0.2 * bias.grad, atol=1e-5, rtol=1e-4)


def test_kl_is_in_the_reward_and_not_in_the_loss(tmp_path):
    """With a reference that differs from the policy the rewards carry −β·(log π − log π_ref) at every token."""
    tiny_policy(seed=1).save_pretrained(tmp_path / "policy")
    plain = ppo_trainer(tmp_path / "a", model=str(tmp_path / "policy"), max_steps=1)
    plain.train()
    trainer = ppo_trainer(tmp_path / "b", model=str(tmp_path / "policy"), max_steps=1, beta=0.1, lam=0.0)
    with torch.no_grad():
        for parameter in trainer.ref_model.parameters():
            parameter.mul_(0.9)
    batches, _ = recorded(trainer)
    seen = []
    trainer._old_policy = lambda output, old=trainer._old_policy: seen.append(old(output)) or seen[-1]
    trainer.train()
    batch, mask = batches[0], batches[0]["completion_mask"].bool()
    kl = (seen[0][0] - batch["ref_per_token_logps"])[mask]
    assert kl.abs().max() > 0.01
    # λ = 0 and V = 0: the return of a token is its own reward
    scored = trainer.last_rollouts.rollouts
    inside = torch.ones_like(mask)  # tokens that end no step earn the KL term alone
    ends = scored.step_lengths.cumsum(1) - 1
    inside.scatter_(1, ends.clamp(min=0), False)
    expected = -0.1 * (seen[0][0] - batch["ref_per_token_logps"])
    torch.testing.assert_close(batch["returns"][mask & inside], expected[mask & inside])
    log = next(entry for entry in trainer.state.log_history if "kl" in entry)
    assert log["kl"] == pytest.approx(kl.mean().item(), rel=1e-4)
    assert trainer.beta == 0.1  # put back after the loss
    assert "kl" not in next(entry for entry in plain.state.log_history if "loss" in entry)


def test_logs(tmp_path):
    trainer = ppo_trainer(tmp_path, max_steps=3)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 3
    for name in ("critic/value_loss", "critic/explained_variance", "critic/return", "critic/value", "critic/clip_frac"):
        assert all(math.isfinite(entry[name]) for entry in logs), name
    for name in ("clip_ratio/region_mean", "process/step_score/mean", "verifier/correct_frac", "reward"):
        assert name in logs[0]
    assert logs[0]["critic/explained_variance"] == pytest.approx(0, abs=1e-5)  # V = 0 explains nothing
    assert logs[0]["critic/value"] == 0 and logs[2]["critic/value"] != 0
    assert 0 <= logs[2]["critic/clip_frac"] <= 1


def test_critic_learns_the_return(tmp_path):
    """The policy held still, a constant outcome: the value loss falls and the value nears the return."""
    trainer = ppo_trainer(
        tmp_path, max_steps=30, critic_warmup=30, critic_learning_rate=3e-3, process_weight=0.0, value_clip=None
    )
    before = trainer.model.get_parameter("model.layers.0.mlp.up_proj.weight").detach().clone()
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    first, last = (sum(entry["critic/value_loss"] for entry in part) for part in (logs[:5], logs[-5:]))
    assert last < 0.7 * first
    assert logs[-1]["critic/value"] == pytest.approx(logs[-1]["critic/return"], abs=0.2)
    assert torch.equal(trainer.model.get_parameter("model.layers.0.mlp.up_proj.weight"), before)


def test_warmup_then_both_learn(tmp_path):
    trainer = ppo_trainer(tmp_path, max_steps=3, critic_warmup=2, learning_rate=1e-3, lr_scheduler_type="constant")
    rates, weights = [], []
    step = trainer.training_step

    def watched(*args, **kwargs):
        rates.append({group["critic"]: group["lr"] for group in trainer.optimizer.param_groups})
        weights.append(trainer.model.get_parameter("model.norm.weight").detach().clone())
        return step(*args, **kwargs)

    trainer.training_step = watched
    trainer.train()
    assert rates == [{False: 0.0, True: 1e-3}] * 2 + [{False: 1e-3, True: 1e-3}]
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[2], trainer.model.get_parameter("model.norm.weight"))


def test_parameter_groups_hold_everything_once(tmp_path):
    trainer = ppo_trainer(tmp_path, critic_learning_rate=5e-3, weight_decay=0.1)
    groups = trainer.create_optimizer().param_groups
    parameters = [id(p) for group in groups for p in group["params"]]
    assert sorted(parameters) == sorted(id(p) for p in trainer.model.parameters())
    critic = {id(p) for p in trainer.model.critic.parameters()}
    for group in groups:
        assert group["critic"] == all(id(p) in critic for p in group["params"])
        assert group["lr"] == (5e-3 if group["critic"] else trainer.args.learning_rate)
    assert {group["weight_decay"] for group in groups if group["critic"]} == {0.0, 0.1}


@pytest.mark.parametrize("critic", ["own", "shared"])
def test_checkpoint_and_resume(tmp_path, critic):
    """The saved policy has no critic in it; 2 updates + resume for 2 = 4 updates, critic and losses included."""
    common = dict(critic=critic, max_steps=4, save_strategy="steps", save_steps=2)
    whole = ppo_trainer(tmp_path / "whole", **common)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    loaded, report = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"] and (checkpoint / CRITIC_FILE).exists()
    assert not hasattr(loaded, "critic")
    resumed = ppo_trainer(tmp_path / "resumed", model=tiny_policy(seed=5), **common)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    ours, theirs = ([e["loss"] for e in t.state.log_history if "loss" in e] for t in (resumed, whole))
    assert ours[-2:] == theirs[-2:]
    for (name, mine), (_, other) in zip(resumed.model.named_parameters(), whole.model.named_parameters(), strict=True):
        assert torch.equal(mine, other), name


def test_the_saved_policy_is_the_trained_one(tmp_path):
    trainer = ppo_trainer(tmp_path, max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "policy"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, trainer.model.get_parameter(name)), name


def test_resuming_without_a_critic_says_so(tmp_path):
    trainer = ppo_trainer(tmp_path / "a", max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    (tmp_path / "a" / "checkpoint-1" / CRITIC_FILE).unlink()
    with pytest.raises(ValueError, match="expected a checkpoint of ProcessPPOTrainer"):
        ppo_trainer(tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))


@pytest.mark.parametrize("critic", ["own", "shared"])
def test_peft(tmp_path, critic):
    """LoRA trains the adapter and the critic, and the adapter's checkpoint holds the adapter only."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = ppo_trainer(tmp_path, max_steps=2, critic=critic, trainer_arguments={"peft_config": config})
    head = trainer.model.critic.head.weight.detach().clone()
    base = trainer.model.base_model.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.critic.head.weight, head)
    assert torch.equal(trainer.model.base_model.model.model.layers[0].mlp.up_proj.weight, base)
    trainer.save_model(str(tmp_path / "adapter"))
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    assert names and all("lora" in name for name in names)
    assert (tmp_path / "adapter" / CRITIC_FILE).exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"num_generations": 4},
        {"num_iterations": 2},
        {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 4},
        {"gradient_checkpointing": True},
        {"mask_truncated_completions": True},
        {"process_weight": 0.0},
        {"shaping": "potential_shaping", "shaping_kwargs": {"initial": {"start": 0.5, "end": 0.0, "updates": 2}}},
    ],
    ids=lambda s: ",".join(s),
)
def test_settings_train(tmp_path, settings):
    scorer = None if settings.get("process_weight") == 0.0 else HashScorer
    trainer = ppo_trainer(tmp_path, max_steps=2, scorer=scorer, **settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = [name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])]
    assert any(name.startswith("critic") for name in moved) and any(name.startswith("model") for name in moved)
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_evaluation_logs_the_critic(tmp_path):
    trainer = ppo_trainer(
        tmp_path,
        max_steps=1,
        trainer_arguments={"eval_dataset": tiny_dataset(8)},
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
    )
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert math.isfinite(log["eval_critic/value_loss"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic": "none"}, "critic: got 'none'"),
        ({"method": "immediate"}, "belongs to GRPO"),
        ({"critic": "shared", "critic_init": "prm"}, "has no trunk"),
        ({"lam": 1.5}, "lam: got 1.5"),
        ({"value_clip": 0.0}, "value_clip: got 0.0"),
        ({"shaping": "nowhere"}, "unknown shaping 'nowhere'"),
        ({"shaping_kwargs": {"eta": 1}}, "shaping 'delta_shaping' with"),
        ({"critic_init": "prm"}, "without a checkpoint"),
        ({"per_device_train_batch_size": 1}, "got one rollout per update"),
    ],
)
def test_bad_settings_say_what_came_and_what_was_expected(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        ppo_trainer(tmp_path, **settings)


def test_a_process_weight_needs_a_prm(tmp_path):
    with pytest.raises(ValueError, match=r"pass step_scorer"):
        ppo_trainer(tmp_path, scorer=None)


def test_an_optimizer_that_would_leave_the_critic_untrained_is_refused(tmp_path):
    policy = tiny_policy()
    own = {"optimizers": (torch.optim.SGD(policy.parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match="optimizers: got an optimizer, expected none: the critic is made in"):
        ppo_trainer(tmp_path, model=policy, trainer_arguments=own)
