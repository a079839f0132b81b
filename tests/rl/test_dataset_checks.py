"""Datasets nothing can be learned from are refused while the trainer is built; gold answers may be numbers."""

import math

import pytest
from datasets import Dataset

from reward.reward_functions import gold_text, outcome_reward
from reward.verifier import Verdict
from rlhf_prm.prompts import load_prompts
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def build(folder, dataset, *, model="no/such/model", verifier=None, eval_dataset=None, reward_funcs=None, **settings):
    """With a model that does not exist: what is refused is refused before loading."""
    return ProcessGRPOTrainer(
        model=model,
        args=tiny_config(folder, **settings),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=verifier or DigitVerifier(),
        reward_funcs=reward_funcs,
    )


GOOD = tiny_dataset(8)
REFUSED = [
    (None, {}, "train_dataset: got None"),
    (tiny_dataset(0), {}, "train_dataset: got no rows"),
    (tiny_dataset(1), {}, r"train_dataset: got 1 prompts, expected at least the 2.*no update at all"),
    (GOOD.rename_column("prompt", "question"), {}, r"train_dataset: got columns \['question', 'solution'\].*`prompt`"),
    (GOOD.rename_column("solution", "answer"), {}, r"\['prompt', 'answer'\], expected `solution`"),
    (GOOD, {"eval_dataset": tiny_dataset(0)}, "eval_dataset: got no rows"),
    (
        GOOD,
        {"eval_dataset": {"a": GOOD.remove_columns("solution")}},
        "eval_dataset a: got columns.*expected `solution`",
    ),
    (GOOD, {"eval_dataset": GOOD.remove_columns("prompt")}, "eval_dataset: got columns.*expected `prompt`"),
    (tiny_dataset(8, solution=[None] * 8), {"method": "outcome"}, "no gold answer in 8 rows.*outcome-only"),
    (tiny_dataset(8, solution=[["1", "2"]] * 8), {}, r"solution: got \['1', '2'\] \(list\)"),
]


@pytest.mark.parametrize(("dataset", "arguments", "message"), REFUSED, ids=[m[:32] for _, _, m in REFUSED])
def test_refused_before_a_model_is_loaded(tmp_path, dataset, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(tmp_path, dataset, **arguments)


def test_ppo_from_outcomes_alone_needs_gold_too(tmp_path):
    with pytest.raises(ValueError, match="no gold answer in 8 rows"):
        ProcessPPOTrainer(
            model="no/such/model",
            args=tiny_config(tmp_path, ProcessPPOConfig, num_generations=1, process_weight=0.0, critic="shared"),
            train_dataset=tiny_dataset(8, solution=[None] * 8),
            processing_class=tiny_tokenizer(),
            verifier=DigitVerifier(),
        )


def test_no_gold_is_fine_where_something_else_is_learned(tmp_path):
    """From the process, or from a further reward function."""
    dataset = tiny_dataset(8, solution=[None] * 8)
    build(tmp_path, dataset, model=tiny_policy(), method="immediate")
    build(tmp_path, dataset, model=tiny_policy(), method="outcome", reward_funcs=lambda completions, **_: [0.0])


class Reader:
    """Remembers the gold answers it was asked about."""

    def __init__(self):
        self.seen = []

    def verify(self, completions, solutions):
        self.seen += solutions
        return [Verdict(1.0, "correct", None, 0.0) for _ in completions]


def test_numbers_are_gold_answers(tmp_path):
    """An integer column reaches the verifier as text; nulls in it stay prompts without gold."""
    reader = Reader()
    dataset = tiny_dataset(8, solution=[7, None] * 4)
    trainer = build(tmp_path, dataset, model=tiny_policy(), verifier=reader, max_steps=2, method="immediate")
    trainer.train()
    assert set(reader.seen) == {"7"}
    assert 0 < len(reader.seen) < 16 and any(row.status == "unlabelled" for row in trainer.last_rollouts.rows)


def test_gold_answers_as_text():
    values = [3, 2.0, 0.5, "x^2", None, math.nan]
    assert [gold_text(value) for value in values] == ["3", "2", "0.5", "x^2", None, None]
    with pytest.raises(ValueError, match=r"got \{'a': 1\} \(dict\), expected a gold answer"):
        gold_text({"a": 1})


def test_outcome_reward_reads_numbers_too(monkeypatch):
    reader = Reader()
    monkeypatch.setattr("reward.reward_functions.shared_verifier", lambda: reader)
    assert outcome_reward(["a", "b"], solution=[7, 2.0]) == [1.0, 1.0]
    assert reader.seen == ["7", "2"]


def test_prompts_from_a_file(tmp_path):
    """NaN among numbers is no gold answer; no rows are refused."""
    path = tmp_path / "numbers.parquet"
    Dataset.from_dict({"prompt": ["a", "b"], "solution": [1.0, math.nan]}).to_parquet(path)
    assert load_prompts(str(path))["solution"] == ["1", None]
    with pytest.raises(ValueError, match=r"numbers.parquet: got no rows \(limit 0\), expected at least one prompt"):
        load_prompts(str(path), limit=0)
