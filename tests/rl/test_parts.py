"""Thinking and answer apart in training, and texts that stay on their rank."""

import math
from functools import partial

import pytest
import torch
from accelerate import utils

from reward import METHODS, MathVerifier, StepRollouts
from rlhf_prm.guard.accuracy import _excerpt
from rlhf_prm.rl.gathered_texts import blanked, kept_texts, without_texts
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.parts import PartVerifier, Reading, credited_steps
from rlhf_prm.rl.rollout_scoring import ScoredRollout, step_rollouts
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.thinking import Thinking
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

TAGS = {"think_tags": [" a", " ="], "think_opened": True}  # words of the tiny policy, which writes them at random


class RecordingVerifier(DigitVerifier):
    def verify(self, completions, solutions):
        self.read = list(completions)
        return super().verify(completions, solutions)


def trainer_of(folder, verifier=None, **settings) -> ProcessGRPOTrainer:
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, max_steps=1, **settings),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=verifier or DigitVerifier(),
    )


def test_each_reads_its_own_part(tmp_path):
    """The PRM and credit the answer, the verifier the answer too; the thinking has the outcome's advantage."""
    verifier = RecordingVerifier()
    reads = dict.fromkeys(("prm_reads", "verifier_reads", "credit_reads"), "answer")
    trainer = trainer_of(tmp_path, verifier, step_limit=4, **TAGS, **reads)
    trainer.train()
    batch, thinking = trainer.last_rollouts, Thinking(" a", " =", opened=True)
    assert verifier.read == [thinking.part(row.text, "answer") for row in batch.rows]
    outcome = METHODS["outcome"](batch.rollouts)
    both = 0
    for i, row in enumerate(batch.rows):
        answers = thinking.is_answer(row.steps)
        both += len(set(answers)) == 2
        assert row.credited == answers and len(row.steps) <= 4
        assert [not math.isnan(score) for score in row.scores] == answers
        for k, answer in enumerate(answers):
            same = torch.isclose(batch.step_advantages[i, k], outcome[i, k])
            assert same if not answer else not same
    assert both > 1  # the test can fail
    assert trainer.state.log_history[0]["process/unscored_frac"] > 0


def test_credit_of_some_steps_by_hand():
    rollouts = StepRollouts(
        step_scores=torch.tensor([[0.9, 0.2], [0.8, 0.7]]),
        step_mask=torch.ones(2, 2, dtype=torch.bool),
        step_lengths=torch.ones(2, 2, dtype=torch.int64),
        outcome_rewards=torch.tensor([1.0, 0.0]),
        num_generations=2,
    )
    advantages = StepAdvantages("immediate", {})
    whole, outcome = advantages(rollouts, 0), METHODS["outcome"](rollouts)
    credited = torch.tensor([[True, False], [False, True]])
    expected = torch.stack([torch.stack([whole[0, 0], outcome[0, 1]]), torch.stack([outcome[1, 0], whole[1, 1]])])
    assert torch.equal(advantages(rollouts, 0, credited=credited), expected)
    half = outcome + 0.5 * (expected - outcome)
    torch.testing.assert_close(advantages(rollouts, 0, 0.5, credited=credited), half)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prm_reads": "answer"}, "prm_reads: got 'answer' without think_tags; set them"),
        ({"credit_reads": "thought", **TAGS}, "credit_reads: got 'thought', expected one of all, thinking, answer"),
        ({"think_opened": True}, "think_opened: got True without think_tags"),
        ({"think_tags": ["<think>"]}, "think_tags: got .'<think>'., expected two"),
        ({"step_limit": 1, **TAGS}, "step limit: got 1, expected 2"),
        ({"gathered_texts": -1}, "gathered_texts: got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **settings)


def test_tags_that_decoding_leaves_out_are_refused():
    with pytest.raises(ValueError, match="think_tags: '<eos>' is a special token"):
        Reading(Thinking("<eos>", " =")).check_tokenizer(tiny_tokenizer())
    Reading(Thinking(" a", " =")).check_tokenizer(tiny_tokenizer())


def test_prompts_that_open_the_thought_must_be_said_to(tmp_path):
    """Else a completion that is cut off inside its thought would be an answer."""
    dataset = tiny_dataset(prompt=[" 1 + 2 =<think>"] * 32)
    settings = {"think_tags": ["<think>", "</think>"], "max_steps": 1}
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(settings["think_tags"])
    model = tiny_policy()
    model.resize_token_embeddings(len(tokenizer))
    for opened in (False, True):
        make = partial(
            ProcessGRPOTrainer,
            model=model,
            args=tiny_config(tmp_path, think_opened=opened, **settings),
            train_dataset=dataset,
            processing_class=tokenizer,
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )
        if opened:
            make()
        else:
            with pytest.raises(ValueError, match="think_opened: got False, but the prompts end in <think>"):
                make()


def test_a_verifier_of_answers_keeps_its_own_ways():
    class Submits(DigitVerifier):
        closed = False

        def submit(self, completions, solutions):
            return completions

    verifier = PartVerifier(Submits(), "answer", Thinking())
    assert verifier.submit(["<think>7</think> 3", "8"], ["3", "8"]) == ["3", "8"] and verifier.closed is False
    assert not hasattr(PartVerifier(DigitVerifier(), "answer", Thinking()), "submit")
    told = MathVerifier(workers=1, in_thought=True)
    with told, pytest.raises(ValueError, match="verifier_reads: got 'answer' beside a verifier with in_thought=True"):
        Reading(Thinking(), verifier="answer").of_verifier(told)
    verifier = PartVerifier(Submits(), "answer", Thinking())
    assert [v.status for v in verifier.verify(["<think>3</think> 4"], ["3"])] == ["incorrect"]


def test_texts_of_whole_groups_are_kept_the_same_on_every_rank():
    """16 rollouts in groups of 4 on 2 ranks, of which about 8 texts are wanted: every second group."""
    ranks = [kept_texts(first, 8, 16, 4, 8) for first in (0, 8)]
    assert ranks == [[True] * 4 + [False] * 4] * 2
    assert kept_texts(0, 8, 16, 4, None) == kept_texts(0, 8, 16, 4, 16) == [True] * 8
    assert sum(kept_texts(0, 64, 64, 8, 1)) == 8  # at least one group
    assert sum(kept_texts(0, 6, 12, 4, 4) + kept_texts(6, 6, 12, 4, 4)) == 4  # a group over two ranks is one


def test_numbers_without_texts_are_the_same_numbers():
    row = ScoredRollout("p", "a\n\nb", ["a", "b"], [2, 1], [0.5, math.nan], 1.0, "correct", solution="3")
    bare = without_texts([row, row], [True, False])
    assert bare[0] is row and (bare[1].prompt, bare[1].text, bare[1].steps) == ("", "", ["", ""])
    assert bare[1].solution is None and not bare[1].has_text
    full, numbers = (step_rollouts(rows, torch.ones(2), 2) for rows in ([row, row], bare))
    assert torch.equal(full.step_scores, numbers.step_scores) and torch.equal(full.step_lengths, numbers.step_lengths)
    assert credited_steps(bare) is None


def test_a_batch_beyond_the_budget_has_blank_rows(tmp_path, monkeypatch):
    """The method sees every rollout; the table and the rows have the texts of one group of four."""
    trainer, gathered = trainer_of(tmp_path, gathered_texts=4), []
    monkeypatch.setattr("trl.trainer.grpo_trainer.gather_object", lambda rows: gathered.append(rows) or rows)
    trainer.train()
    rows = trainer.last_rollouts.rows
    assert [row.has_text for row in rows] == [True] * 4 + [False] * 4
    assert list(trainer._logs["completion"]) == [row.text for row in rows[:4]] + [""] * 4
    assert all(trainer._logs["prompt"][i] for i in range(4)) and not any(
        trainer._logs["prompt"][i] for i in (4, 5, 6, 7)
    )
    assert [steps is not None for steps in trainer._logs["extra"]["steps"]] == [True] * 4 + [False] * 4
    assert len(trainer._logs["extra"]["step_scores"]) == 8 and not any(math.isnan(s) for s in rows[5].scores)
    assert trainer.last_rollouts.rollouts.step_mask.sum() == sum(len(row.lengths) for row in rows)
    assert [len(items) for items in gathered[:2]] == [8, 8]  # prompts and completions come first
    assert utils.gather_object is not None


def test_a_list_of_another_length_is_left_alone():
    assert blanked([True, False])(["a", "b"]) == ["a", ""]
    assert blanked([True, False])(["a", "b", "c"]) == ["a", "b", "c"]


def test_an_excerpt_has_the_first_step_and_the_last():
    assert _excerpt(["aa", "bb", "cc", "dd"], 6) == ["aa", "cc", "dd"]
    assert _excerpt(["aa"], 1) == ["aa"] and _excerpt(["aa", "b"], 2) == ["aa"]
