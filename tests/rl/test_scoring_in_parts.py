"""Groups are scored while others are sampled: the same rows, advantages and counts as when all are sampled together."""

import threading
from concurrent.futures import Future

import pytest
import torch
from trl import GRPOTrainer

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.scoring_in_parts import parts_of, sampled_in_parts
from tests.tiny import WORDS, DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

WAIT = 30  # seconds that a test waits for a thread before it fails


class Beside(HashScorer):
    """Scores in a thread, as a judge or a PRM behind a server does; ``events`` tells when."""

    def __init__(self, events):
        self.events, self.done = events, threading.Event()

    def submit(self, problems, steps):
        self.events.append(f"begun {len(problems)}")
        future = Future()

        def work():
            future.set_result(self.score(problems, steps))
            self.events.append(f"scored {len(problems)}")
            self.done.set()

        threading.Thread(target=work, daemon=True).start()
        return future


class Counting(HashScorer):
    def __init__(self):
        self.calls = []

    def score(self, problems, steps):
        self.calls.append(len(problems))
        return super().score(problems, steps)


def trainer_of(folder, scorer=None, **settings):
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, **({"max_steps": 1, "num_generations": 2} | settings)),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer or HashScorer(),
        verifier=DigitVerifier(),
    )


@pytest.fixture
def scripted(monkeypatch):
    """TRL samples what follows from the prompt and how often it was asked; gives the sizes and what ran meanwhile."""
    asked = []

    def sample(self, prompt_ids, images, multimodal_fields, num_generations, **_):
        before = sum(asked)
        asked.append(len(prompt_ids))
        rows = range(before, before + len(prompt_ids))
        return [
            [4 + (7 * row + k) % (len(WORDS) - 4) if k % 3 else 3 for k in range(2 + row % 5)] for row in rows
        ], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", sample)
    return asked


def trained(trainer):
    trainer.train()
    return trainer.last_rollouts, trainer.state.log_history[0]


def test_the_same_rows_and_advantages_as_all_together(scripted, tmp_path):
    together, log = trained(trainer_of(tmp_path / "together"))
    assert scripted == [8]
    scripted.clear()
    in_parts, other = trained(trainer_of(tmp_path / "parts", groups_at_once=1))
    assert scripted == [2, 2, 2, 2]
    assert in_parts.rows == together.rows
    torch.testing.assert_close(in_parts.step_advantages, together.step_advantages, atol=0, rtol=0)
    same = [
        name for name in log if name.split("/")[0] in ("process", "advantage", "verifier") and "seconds" not in name
    ]
    assert len(same) > 8 and [log[name] for name in same] == pytest.approx([other[name] for name in same], nan_ok=True)
    assert log["loss"] == other["loss"] and log["grad_norm"] == other["grad_norm"]


def test_the_first_groups_are_scored_while_the_last_are_sampled(scripted, tmp_path, monkeypatch):
    events, scripts = [], GRPOTrainer._generate_single_turn
    scorer = Beside(events)

    def sample(*args, **keywords):
        if scripted:  # not the first part: its scores are there before this one is sampled
            assert scorer.done.wait(WAIT)
            scorer.done.clear()
        events.append("sampled")
        return scripts(*args, **keywords)

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", sample)
    batch, _ = trained(trainer_of(tmp_path, scorer, groups_at_once=2))
    assert scripted == [4, 4] and events == ["sampled", "begun 4", "scored 4"] * 2
    expected, _ = HashScorer().score([row.prompt for row in batch.rows], [row.steps for row in batch.rows]), None
    assert [row.scores for row in batch.rows] == [pytest.approx(scores) for scores in expected]


def test_a_scorer_in_this_process_is_called_once_at_the_end(scripted, tmp_path):
    scorer = Counting()
    trained(trainer_of(tmp_path, scorer, groups_at_once=1))
    assert len(scripted) == 4 and scorer.calls == [8]


def test_a_whole_batch_is_one_part_and_evaluation_is_scored_too(scripted, tmp_path):
    trainer = trainer_of(tmp_path, groups_at_once=4)
    trained(trainer)
    assert scripted == [8]
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path, max_steps=1, num_generations=2, groups_at_once=3, per_device_eval_batch_size=8),
        train_dataset=tiny_dataset(),
        eval_dataset=tiny_dataset(8),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    scripted.clear()
    trainer.evaluate()
    assert set(scripted) == {6, 2} and trainer.last_rollouts.mode == "eval"


def test_parts_of_rows():
    assert [(part.start, part.stop) for part in parts_of(5, 2)] == [(0, 2), (2, 4), (4, 5)]
    begun = []
    got = sampled_in_parts(lambda rows: ([[rows.start]], [[0.5]]), 3, 1, lambda rows, ids: begun.append((rows, ids)))
    assert got == ([[0], [1], [2]], [[0.5]] * 3) and [ids for _, ids in begun] == [[[0]], [[1]], [[2]]]


class OfTokens:
    def score_tokens(self, rollouts):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("scorer", "settings", "message"),
    [
        (None, {"groups_at_once": -1}, "groups_at_once: got -1, expected 0"),
        (None, {"groups_at_once": 1, "num_generations": 16, "generation_batch_size": 16}, "a group spans processes"),
        (OfTokens(), {"groups_at_once": 1, "method": "prime"}, "OfTokens, expected 0: it needs the policy"),
    ],
)
def test_what_cannot_be_sampled_in_parts_is_refused(tmp_path, scorer, settings, message, monkeypatch):
    if "generation_batch_size" in settings:  # as each of two processes sees it
        trainer = trainer_of(tmp_path, num_generations=8, groups_at_once=1)
        trainer.args.num_generations = 16
        from rlhf_prm.rl.scoring_in_parts import check_parts

        with pytest.raises(ValueError, match=message):
            check_parts(trainer, HashScorer())
        return
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, scorer, **settings)


def test_a_policy_with_tools_is_refused(tmp_path):
    with pytest.raises(ValueError, match="groups_at_once: got 1, expected 0 for a policy with tools"):
        ProcessGRPOTrainer(
            model=tiny_policy(),
            args=tiny_config(tmp_path, groups_at_once=1),
            train_dataset=tiny_dataset(),
            processing_class=tiny_tokenizer(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
            rollout_func=lambda prompts, trainer: {},
        )
