"""The lean loop against ``ProcessGRPOTrainer``: the same gradient; equal seeds, equal runs; the memory comes back."""

import pytest
import torch

from reward import initial_approval, step_to_token
from rlhf_prm.prm import load_prm
from rlhf_prm.prm.log_ratio import LogRatioScorer
from rlhf_prm.prm.token_model import load_token_model
from rlhf_prm.prm_training.implicit import ImplicitPRM, ImplicitSettings
from rlhf_prm.prm_training.implicit_models import TwoModels
from rlhf_prm.prm_training.refresh import RefreshSettings
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.toyworld.oracle import OracleScorer
from rlhf_prm.toyworld.quick_grpo import Regime, policy_loss, quick_grpo
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_gradient_is_the_trainers(tmp_path):
    """For the rollouts and advantages of the trainer's first update, before clipping."""
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, method="immediate", loss_type="bnpo", max_steps=1, max_grad_norm=0.0),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    seen = []
    compute_loss = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: seen.append(inputs) or compute_loss(model, inputs)
    step = trainer.create_optimizer().step
    wanted = {}
    trainer.optimizer.step = lambda *a, **k: wanted.update(gradients(trainer.model)) or step(*a, **k)
    trainer.train()

    batch, inputs = trainer.last_rollouts, seen[0]
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
    completions = [
        ids[mask.bool()].tolist() for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True)
    ]
    assert len({len(ids) for ids in completions}) > 1  # so that the token mean differs from a mean over rollouts
    tokens = step_to_token(batch.step_advantages, batch.rollouts.step_lengths, max(map(len, completions)))
    policy = tiny_policy()
    # The trainer may have put the rollouts into another order for the update: advantages go by rollout.
    torch.testing.assert_close(tokens.sum(1).sort().values, inputs["advantages"].sum(1).sort().values)
    policy_loss(policy, prompts, completions, inputs["advantages"], pad_token_id=0).backward()
    found = gradients(policy)
    assert set(found) == set(wanted) and any(gradient.abs().max() > 1e-4 for gradient in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_the_loss_by_hand():
    """Two rollouts of 1 and 2 tokens: −Σ A·log π over 3 tokens; prompt and padding count nothing."""
    policy = tiny_policy().eval()
    prompts, completions = [[5, 6, 7], [8]], [[9], [10, 11]]
    advantages = torch.tensor([[2.0, 1e6], [-1.0, 0.5]])
    with torch.no_grad():
        loss = policy_loss(policy, prompts, completions, advantages, pad_token_id=0)
        total = 0.0
        for prompt, completion, row in zip(prompts, completions, advantages.tolist(), strict=True):
            for k, (token, advantage) in enumerate(zip(completion, row, strict=False)):
                logits = policy(torch.tensor([prompt + completion[:k]])).logits[0, -1]
                total -= advantage * logits.log_softmax(-1)[token].item()
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


SHORT = Regime(max_steps=2, prompts=4, num_generations=4, warmup_steps=0)


def test_equal_seeds_give_equal_runs_and_another_seed_another(small_world):
    first, again, other = (
        quick_grpo(small_world, OracleScorer(), "immediate", {}, SHORT, seed=seed) for seed in (0, 0, 1)
    )
    timed = {"seconds", "cpu_seconds"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in again.items() if k not in timed}
    assert first["generated_tokens"] != other["generated_tokens"]
    assert first["memory"] == {} and 0 <= first["process_accuracy"] <= first["accuracy"] <= 1


def test_the_methods_memory_comes_back(small_world):
    memory = quick_grpo(small_world, OracleScorer(), "trusted", {"window": 64.0}, SHORT)["memory"]
    assert set(memory) == set(initial_approval())
    assert memory["verified"] > 0  # two batches of 16 rollouts have been counted


def test_outcome_only_needs_no_scorer(small_world):
    assert (
        quick_grpo(small_world, None, "outcome", regime=Regime(max_steps=1, prompts=2, num_generations=2))["memory"]
        == {}
    )


@pytest.mark.parametrize("name", ["max_steps", "prompts", "num_generations"])
def test_a_regime_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: got 0, expected at least 1"):
        Regime(**{name: 0})


def test_a_prm_that_learns_along_and_leaves_the_one_given_alone(small_world):
    prm = load_prm(str(small_world.prm_path))
    old = {name: t.clone() for name, t in prm.placement.reader.state_dict().items()}
    refresh = RefreshSettings(
        every=1, rows=48, updates=4, batch_size=16, held_out=0.5, labels="gold", learning_rate=3e-3
    )
    regime = Regime(max_steps=3, prompts=8, num_generations=4, warmup_steps=0)
    told = quick_grpo(small_world, prm, "immediate", {}, regime, refresh=refresh, measure_every=1)
    assert [row["update"] for row in told["refreshes"]] == [1, 2]  # not after the last update
    assert all(row["rows"] > row["fresh"] > 0 for row in told["refreshes"])  # the world's own rows are replayed
    assert [row["update"] for row in told["scorer_quality"]] == [1, 2, 3]
    assert all(torch.equal(old[name], t) for name, t in prm.placement.reader.state_dict().items())
    frozen = quick_grpo(small_world, prm, "immediate", {}, regime)
    assert frozen["refreshes"] == [] and frozen["generated_tokens"] != 0
    again = quick_grpo(small_world, prm, "immediate", {}, regime, refresh=refresh, measure_every=1)
    for one, other in zip(told["refreshes"], again["refreshes"], strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }


@pytest.mark.parametrize("labels", ["judge", "mc", "consensus", "confirmed", "outcome"])
def test_every_source_of_labels_can_be_asked(small_world, labels):
    regime = Regime(max_steps=2, prompts=8, num_generations=4, warmup_steps=0)
    refresh = RefreshSettings(every=1, rows=32, updates=1, held_out=0.5, labels=labels)
    (told,) = quick_grpo(
        small_world, load_prm(str(small_world.prm_path)), "immediate", {}, regime, refresh=refresh,
        label_options={"num_completions": 2, "votes": 3},
    )["refreshes"]  # fmt: skip
    assert told["fresh"] + told["held_out"] + told["rejected"] <= 32 and told["held_out"] > 0


def test_scorers_of_tokens_and_those_that_learn_along(small_world):
    """A teacher that is the policy says nothing at first; an implicit PRM has told something of every update."""
    path = small_world.policy_path
    regime = Regime(max_steps=3, prompts=4, num_generations=4, warmup_steps=0)
    implicit = ImplicitPRM(
        TwoModels(load_token_model(path), load_token_model(path)), ImplicitSettings(learning_rate=1e-3)
    )
    told = quick_grpo(small_world, implicit, "prime", {}, regime, measure_every=1)
    assert [row["update"] for row in told["learnt"]] == [1, 2, 3] and implicit.stats.updates == 3
    assert [row["update"] for row in told["scorer_quality"]] == [1, 2, 3]
    spread = []

    class Noting(LogRatioScorer):
        def score_tokens(self, rollouts):
            found = super().score_tokens(rollouts)
            spread.append(max(row.abs().max().item() for row in found))
            return found

    quick_grpo(small_world, Noting(load_token_model(path)), "distil", {"teacher_weight": 0.5}, regime)
    assert spread[0] < 1e-4 < 1e-3 < spread[2]
