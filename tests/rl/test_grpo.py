"""ProcessGRPOTrainer against TRL's own trainer, and its behaviour in the situations TRL allows."""

import json
import math

import pandas as pd
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from reward import METHODS, step_to_token
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.folder import MetricsFile
from tests.tiny import DigitVerifier, HashScorer, digit_reward, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def process_trainer(
    folder, *, dataset=None, scorer=None, model=None, callbacks=None, trainer_arguments=None, **settings
):
    return ProcessGRPOTrainer(
        model=model or tiny_policy(),
        args=tiny_config(folder, **settings),
        train_dataset=tiny_dataset() if dataset is None else dataset,
        processing_class=tiny_tokenizer(),
        step_scorer=scorer or HashScorer(),
        verifier=DigitVerifier(),
        callbacks=callbacks,
        **(trainer_arguments or {}),
    )


def losses(trainer) -> list[tuple[float, float]]:
    return [(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "loss" in log]


EQUIVALENT = [{"loss_type": name} for name in ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "vespo")] + [
    {"num_iterations": 2},
    {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    {"mask_truncated_completions": True},
]


@pytest.mark.parametrize("settings", EQUIVALENT, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()))
def test_outcome_reproduces_grpo_exactly(tmp_path, settings):
    """Losses, gradient norms and final weights over 3 updates, to the last bit."""
    common = {"max_steps": 3, **settings}
    ours = process_trainer(tmp_path / "ours", method="outcome", **common)
    ours.train()
    theirs = GRPOTrainer(
        model=tiny_policy(),
        reward_funcs=digit_reward,
        args=tiny_config(tmp_path / "theirs", GRPOConfig, **common),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
    )
    theirs.train()
    assert len(losses(ours)) == 3 and any(norm > 0 for _, norm in losses(ours))
    assert losses(ours) == losses(theirs)
    for (name, mine), (_, other) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.equal(mine, other), name


def test_token_advantages_are_the_steps_advantages(tmp_path):
    """What reaches the loss: every token of a step carries that step's advantage, padding carries 0."""
    trainer = process_trainer(tmp_path, method="immediate")
    seen = []
    compute_loss = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: seen.append(inputs) or compute_loss(model, inputs)
    prepare = trainer._generate_and_score_completions
    batches = []
    trainer._generate_and_score_completions = lambda inputs: batches.append(prepare(inputs)) or batches[-1]
    trainer.train()
    for output in batches[-1:]:
        batch = trainer.last_rollouts
        expected = METHODS["immediate"](batch.rollouts)
        torch.testing.assert_close(batch.step_advantages, expected)
        mask = output["completion_mask"]
        tokens = step_to_token(expected, batch.rollouts.step_lengths, mask.size(1))
        assert torch.equal(output["advantages"], tokens * mask)
        for row, scored in enumerate(batch.rows):
            start = 0
            for k, length in enumerate(scored.lengths):
                assert torch.all(output["advantages"][row, start : start + length] == expected[row, k])
                start += length
            assert start == mask[row].sum() and torch.all(output["advantages"][row, start:] == 0)
    assert seen[0]["advantages"].dim() == 2


def test_metrics_and_completions_table(tmp_path):
    trainer = process_trainer(
        tmp_path, log_completions=True, num_completions_to_print=0, callbacks=[MetricsFile(tmp_path)]
    )
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    log = rows[0]
    for name in ("process/step_score/mean", "process/step_score/min", "process/num_steps/mean", "advantage/frac_zero"):
        assert math.isfinite(log[name])
    assert "process/auroc" in log and log["prm/seconds"] >= 0 and log["verifier/seconds"] >= 0
    assert log["verifier/correct_frac"] == pytest.approx(log["rewards/verifier/mean"])
    assert log["verifier/correct_frac"] + log["verifier/incorrect_frac"] == pytest.approx(1)
    table = pd.read_parquet(tmp_path / "completions" / "completions_00003.parquet")
    batch = trainer.last_rollouts
    for i, row in enumerate(batch.rows):
        assert list(table["steps"][i]) == row.steps and list(table["step_scores"][i]) == pytest.approx(row.scores)
        advantages = batch.step_advantages[i, : len(row.steps)]
        assert list(table["step_advantages"][i]) == pytest.approx(advantages.tolist())
        mean = (advantages * torch.tensor(row.lengths)).sum() / sum(row.lengths)
        assert table["advantage"][i] == pytest.approx(mean.item(), abs=1e-6)


def test_prompts_without_gold_learn_from_the_process(tmp_path):
    dataset = tiny_dataset(8, solution=[None] * 8)
    trainer = process_trainer(tmp_path, dataset=dataset, method="immediate", max_steps=2)
    trainer.train()
    assert trainer.last_rollouts.rollouts.outcome_rewards.isnan().all()
    assert trainer.last_rollouts.step_advantages.abs().sum() > 0
    assert trainer.state.log_history[0]["verifier/unlabelled_frac"] == 1
    assert losses(trainer)[0][1] > 0


def test_process_scale_zero_is_outcome_only(tmp_path):
    dense = process_trainer(tmp_path / "a", method="grpo_ps")
    dense.process_scale = 0.0
    dense.train()
    plain = process_trainer(tmp_path / "b", method="outcome")
    plain.train()
    assert losses(dense) == losses(plain)


def test_scheduled_weight_reaches_the_method(tmp_path):
    schedule = {"start": 1.0, "end": 0.0, "updates": 2, "kind": "linear"}
    trainer = process_trainer(tmp_path, method="immediate", method_kwargs={"process_weight": schedule})
    trainer.train()
    batch = trainer.last_rollouts  # the third update: global step 2, the weight has reached 0
    assert batch.update == 2
    torch.testing.assert_close(batch.step_advantages, METHODS["outcome"](batch.rollouts))


def test_evaluation_one_generation(tmp_path):
    trainer = process_trainer(tmp_path, num_generations_eval=1, per_device_eval_batch_size=4, max_steps=1)
    metrics = trainer.evaluate(eval_dataset=tiny_dataset(8))
    assert 0 <= metrics["eval_rewards/verifier/mean"] <= 1 and metrics["eval_process/num_steps/mean"] >= 1
    assert trainer.last_rollouts.mode == "eval" and trainer.last_rollouts.rollouts.num_generations == 1


def test_further_reward_functions_add_to_the_outcome(tmp_path):
    def half(completions, **_):
        return [0.5] * len(completions)

    trainer = process_trainer(
        tmp_path, method="outcome", max_steps=1, reward_weights=[1.0, 0.2], trainer_arguments={"reward_funcs": half}
    )
    trainer.train()
    outcomes = trainer.last_rollouts.rollouts.outcome_rewards
    expected = torch.tensor([row.reward + 0.1 for row in trainer.last_rollouts.rows])
    torch.testing.assert_close(outcomes, expected)


def test_conversational_prompts_and_lora(tmp_path):
    from peft import LoraConfig

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %} {{ m['content'] }}{% endfor %}"
    prompts = [[{"role": "system", "content": " a"}, {"role": "user", "content": f" {i} + 1 ="}] for i in range(8)]
    seen = []

    class Recording(HashScorer):
        def score(self, problems, steps):
            seen.extend(problems)
            return super().score(problems, steps)

    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, max_steps=2),
        train_dataset=tiny_dataset(8, prompt=prompts),
        processing_class=tokenizer,
        step_scorer=Recording(),
        verifier=DigitVerifier(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    assert all(problem.endswith(" + 1 =") and " a" not in problem for problem in seen)
    assert losses(trainer)[0][1] > 0
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_empty_completions_and_single_steps(tmp_path):
    """A policy that stops at once gives rollouts of one token and one empty step."""
    policy = tiny_policy()
    policy.generation_config.eos_token_id = list(range(len(tiny_tokenizer())))  # whatever it says ends it
    trainer = process_trainer(tmp_path, model=policy, method="pure", max_steps=2)
    trainer.train()
    batch = trainer.last_rollouts
    assert all(row.lengths == [1] for row in batch.rows)
    assert batch.step_advantages.isfinite().all()


def test_unscored_steps_do_not_poison_the_batch(tmp_path):
    class PastContext(HashScorer):
        def score(self, problems, steps):
            return [[row[0], *[math.nan] * (len(row) - 1)] for row in super().score(problems, steps)]

    trainer = process_trainer(tmp_path, scorer=PastContext(), method="grpo_ps", max_steps=2, max_completion_length=60)
    trainer.train()
    assert trainer.state.log_history[0]["process/unscored_frac"] > 0
    assert trainer.last_rollouts.step_advantages.isfinite().all()
    assert all(math.isfinite(loss) for loss, _ in losses(trainer))
