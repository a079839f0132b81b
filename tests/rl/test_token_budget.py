"""TokenBudget: every generated token counts once, also over a resume; what is measured does not count."""

import json

import pytest
from transformers import TrainerCallback

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.live_values import LiveMonteCarloScorer
from rlhf_prm.rl.token_budget import TokenBudget
from rlhf_prm.rl.undisturbed import training_undisturbed
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class Evaluate(TrainerCallback):
    """Samples held-out problems after every update, which is no part of the budget."""

    trainer = None

    def on_step_end(self, args, state, control, **_):
        with training_undisturbed(self.trainer):
            self.trainer.evaluate()


class Counting(ProcessGRPOTrainer):
    """Adds up what TRL says about the length of every completion generated for training."""

    def __init__(self, *arguments, **keywords):
        self.generated = []
        super().__init__(*arguments, **keywords)

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self.generated.append(int(output["completion_mask"].sum()))
        return output


def trained(folder, budget=None, resume=None, scorer=None, **settings):
    tokens, evaluate = TokenBudget(budget=budget), Evaluate()
    defaults = dict(gradient_accumulation_steps=4, steps_per_generation=1, num_generations_eval=1, max_steps=3)
    trainer = Counting(
        model=tiny_policy(),
        args=tiny_config(folder, method="immediate", **(defaults | settings)),
        train_dataset=tiny_dataset(32),
        eval_dataset=tiny_dataset(4),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer or HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[evaluate, tokens],
    )
    tokens.trainer = evaluate.trainer = trainer
    trainer.train(resume_from_checkpoint=resume)
    return trainer, tokens


def logged(trainer) -> list[int]:
    return [row["generated_tokens"] for row in trainer.state.log_history if "loss" in row]


def test_all_generations_of_an_update_count(tmp_path):
    trainer, tokens = trained(tmp_path)
    assert len(trainer.generated) == 12 and tokens.tokens == sum(trainer.generated)
    assert logged(trainer) == [sum(trainer.generated[:n]) for n in (4, 8, 12)]


def test_one_generation_for_several_updates_counts_once(tmp_path):
    trainer, _ = trained(tmp_path, gradient_accumulation_steps=1, steps_per_generation=2, max_steps=4)
    assert len(trainer.generated) == 2 and logged(trainer) == [
        trainer.generated[0],
        trainer.generated[0],
        sum(trainer.generated),
        sum(trainer.generated),
    ]


def test_the_budget_ends_the_run_at_the_update_that_reaches_it(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    budget = sum(whole.generated[:4]) + 1
    trainer, tokens = trained(tmp_path / "cut", budget=budget)
    assert trainer.state.global_step == 2 and tokens.tokens == sum(whole.generated[:8]) >= budget


def test_a_resumed_run_goes_on_counting(tmp_path):
    """The log of the checkpoint is older than the checkpoint: nothing was logged since update 1."""
    settings = dict(save_strategy="steps", save_steps=2, logging_steps=10, logging_first_step=True)
    first, _ = trained(tmp_path, max_steps=2, **settings)
    assert json.loads((tmp_path / "checkpoint-2" / "token_budget.json").read_text()) == {"tokens": sum(first.generated)}
    second, tokens = trained(tmp_path, max_steps=3, resume=str(tmp_path / "checkpoint-2"), **settings)
    assert len(second.generated) == 4 and tokens.tokens == sum(first.generated) + sum(second.generated)


def test_a_checkpoint_without_a_count_is_said(tmp_path, caplog):
    settings = dict(save_strategy="steps", save_steps=2)
    first, _ = trained(tmp_path, max_steps=2, **settings)
    (tmp_path / "checkpoint-2" / "token_budget.json").unlink()
    trained(tmp_path, max_steps=3, resume=str(tmp_path / "checkpoint-2"), **settings)
    told = f"checkpoint-2 has no token_budget.json: counting on from {sum(first.generated)} tokens"
    assert told in caplog.text


@pytest.mark.parametrize("in_evaluation", [False, True])
def test_completions_of_live_values_count_too(tmp_path, in_evaluation):
    """What a held-out evaluation samples to value its steps does not."""
    scorer = LiveMonteCarloScorer(2, in_evaluation=in_evaluation)
    trainer, _ = trained(tmp_path, scorer=scorer, gradient_accumulation_steps=1, max_steps=2)
    live = [int(row["prm/tokens"]) for row in trainer.state.log_history if "loss" in row]
    assert len(live) == 2 and min(live) > 0
    assert logged(trainer) == [sum(trainer.generated[:1]) + live[0], sum(trainer.generated) + sum(live)]
    assert (scorer.stats.tokens > sum(live)) == in_evaluation


def test_no_budget_below_one_token():
    with pytest.raises(ValueError, match="token_budget: got 0"):
        TokenBudget(budget=0)
