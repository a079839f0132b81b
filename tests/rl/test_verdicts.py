"""What is correct is the verifier's to say, whatever else is paid; and a verifier may come as a reward function."""

import math
import zlib

import pandas as pd
import pytest
import torch

import reward.reward_functions
from reward import METHODS, StepRollouts, outcome_reward
from reward.verifier import Verdict
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.tiny import HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class Coin:
    """Right for about half of all completions, whatever they say."""

    def verify(self, completions: list[str], solutions: list[str | None]) -> list[Verdict]:
        right = [zlib.crc32(text.encode()) % 2 == 0 for text in completions]
        return [Verdict(float(r), "correct" if r else "incorrect", None, 0.0) for r in right]


def trainer_of(folder, *, dataset=None, eval_dataset=None, verifier=None, reward_funcs=None, **settings):
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, **{"max_steps": 2, "method": "papo", **settings}),
        train_dataset=dataset or tiny_dataset(),
        eval_dataset=eval_dataset,
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=verifier,
        reward_funcs=reward_funcs,
    )


def well_formed(completions, **_):
    return [1.0] * len(completions)


def too_long(completions, **_):
    return [-0.75] * len(completions)


@pytest.fixture
def shared(monkeypatch):
    """The verifier behind ``outcome_reward``: the coin."""
    monkeypatch.setattr(reward.reward_functions, "shared_verifier", Coin)


@pytest.mark.parametrize("paid", [well_formed, too_long])
def test_other_rewards_do_not_change_what_is_correct(tmp_path, paid):
    trainer = trainer_of(tmp_path, verifier=Coin(), reward_funcs=paid)
    trainer.train()
    batch = trainer.last_rollouts
    right = torch.tensor([row.status == "correct" for row in batch.rows])
    assert 0 < right.sum() < len(right)  # otherwise this shows nothing
    assert torch.equal(batch.rollouts.correct, right) and torch.equal(batch.rollouts.incorrect, ~right)
    torch.testing.assert_close(batch.rollouts.outcome_rewards, right.float() + paid([0])[0])
    plain = METHODS["papo"](
        StepRollouts(**{**vars(batch.rollouts), "outcome_rewards": right.float(), "verdicts": None})
    )
    torch.testing.assert_close(batch.step_advantages, plain, rtol=1e-4, atol=1e-4)


def test_without_gold_there_is_no_verdict_though_there_is_a_reward(tmp_path):
    trainer = trainer_of(
        tmp_path,
        dataset=tiny_dataset(8, solution=[None] * 8),
        verifier=Coin(),
        reward_funcs=well_formed,
        method="verigate",
    )
    trainer.train()
    batch = trainer.last_rollouts
    assert not batch.rollouts.outcome_rewards.isnan().any() and batch.rollouts.verdicts.isnan().all()
    assert not batch.rollouts.correct.any() and not batch.rollouts.incorrect.any()
    assert math.isnan(trainer_metrics(trainer)["process/auroc"] or math.nan)


def test_rewards_alone_are_correct_above_one_half(tmp_path):
    def coin(completions, **_):
        return [verdict.reward for verdict in Coin().verify(completions, [])]

    trainer = trainer_of(tmp_path, reward_funcs=coin)
    trainer.train()
    rollouts = trainer.last_rollouts.rollouts
    assert rollouts.verdicts is None and torch.equal(rollouts.correct, rollouts.outcome_rewards > 0.5)
    log = trainer_metrics(trainer)
    assert 0 <= log["process/auroc"] <= 1
    assert not [name for name in log if name.startswith("verifier/") and name != "verifier/seconds"]


def trainer_metrics(trainer) -> dict:
    return [row for row in trainer.state.log_history if "loss" in row][-1]


def test_a_verifier_with_words_of_its_own_is_refused(tmp_path):
    class Worded:
        def verify(self, completions, solutions):
            return [Verdict(1.0, "right", None, 0.0) for _ in completions]

    with pytest.raises(ValueError, match="status: got 'right', expected one of correct, incorrect"):
        trainer_of(tmp_path, verifier=Worded()).train()


# --- the verifier as a reward function --------------------------------------------------------------------------------


def doubled(completions, solution, log_extra=None, log_metric=None, **_):
    """A reward function of one's own around the project's."""
    return [2 * value for value in outcome_reward(completions, solution, log_extra, log_metric)]


@pytest.mark.parametrize("function", [outcome_reward, doubled], ids=["itself", "wrapped"])
def test_outcome_reward_is_as_good_as_the_verifier(tmp_path, shared, function):
    """One value a name, statuses that say what was found, an AUROC, and the same verdicts."""
    with_function = trainer_of(tmp_path / "function", reward_funcs=function, log_completions=True)
    with_function.train()
    with_verifier = trainer_of(tmp_path / "verifier", verifier=Coin(), log_completions=True)
    with_verifier.train()
    ours, theirs = with_function.last_rollouts, with_verifier.last_rollouts
    assert [row.status for row in ours.rows] == [row.status for row in theirs.rows]
    assert torch.equal(ours.rollouts.verdicts, theirs.rollouts.verdicts)
    logs, expected = trainer_metrics(with_function), trainer_metrics(with_verifier)
    for name in expected:
        if name.startswith(("verifier/", "process/")) and name != "verifier/seconds":
            assert logs[name] == expected[name], name
    assert logs["verifier/correct_frac"] > 0
    tables = [
        pd.read_parquet(tmp_path / run / "completions" / "completions_00002.parquet")
        for run in ("function", "verifier")
    ]
    assert list(tables[0]["verifier_status"]) == list(tables[1]["verifier_status"])


def test_outcome_reward_evaluates_on_start_with_completions(tmp_path, shared):
    trainer = trainer_of(
        tmp_path,
        reward_funcs=outcome_reward,
        eval_dataset=tiny_dataset(4),  # fewer rows than a batch of training, whose size bounds TRL's table
        log_completions=True,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
        num_generations_eval=1,
    )
    trainer.train()
    table = pd.read_parquet(tmp_path / "completions" / "completions_00000.parquet")
    assert len(table) == 4 and set(table["verifier_status"]) <= {"correct", "incorrect"}


def test_bad_golds_have_no_verdict(tmp_path, monkeypatch):
    class Gold(Coin):
        def verify(self, completions, solutions):
            verdicts = super().verify(completions, solutions)
            bad = Verdict(None, "bad_gold", None, 0.0)
            return [v if solution else bad for v, solution in zip(verdicts, solutions, strict=True)]

    monkeypatch.setattr(reward.reward_functions, "shared_verifier", Gold)
    dataset = tiny_dataset(8, solution=["1", None] * 4)
    trainer = trainer_of(tmp_path, dataset=dataset, reward_funcs=[outcome_reward, well_formed])
    trainer.train()
    batch = trainer.last_rollouts
    bad = torch.tensor([row.status == "bad_gold" for row in batch.rows])
    assert 0 < bad.sum() < len(bad) and torch.equal(batch.rollouts.verdicts.isnan(), bad)
    assert not batch.rollouts.outcome_rewards.isnan().any()


def test_two_voices_about_the_verdict(tmp_path, shared):
    """The trainer's verifier has the last word, and says so."""
    trainer = trainer_of(tmp_path, verifier=Coin(), reward_funcs=outcome_reward, log_completions=True)
    with pytest.warns(UserWarning, match="verifier_status.*verifier= decides"):
        trainer.train()
    table = pd.read_parquet(tmp_path / "completions" / "completions_00002.parquet")
    assert list(table["verifier_status"]) == [row.status for row in trainer.last_rollouts.rows]
    assert trainer.last_rollouts.rollouts.correct.tolist() == [s == "correct" for s in table["verifier_status"]]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("steps", 8, "log_extra: got column 'steps', which the trainer writes itself"),
        ("verifier_status", 3, "verifier_status: got 3 values for 8 completions"),
    ],
)
def test_columns_of_the_trainer_are_its_own(tmp_path, column, values, message):
    def logging(completions, log_extra, **_):
        log_extra(column, ["correct"] * values)
        return [0.0] * len(completions)

    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, reward_funcs=logging).train()


def test_outcome_reward_without_solutions_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"\['prompt', 'answer'\], expected `solution`"):
        trainer_of(tmp_path, dataset=tiny_dataset(8).rename_column("solution", "answer"), reward_funcs=outcome_reward)
