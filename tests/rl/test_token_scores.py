"""Token scores on their way: ids and log-probabilities in, scores gathered, masked and logged, advantages out."""

import math

import pytest
import torch

from reward import METHODS, TOKEN_METHODS, StepRollouts, step_to_token
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.own_state import SCORER_FILE
from rlhf_prm.rl.policy_log_probs import policy_log_probs
from rlhf_prm.rl.ppo import ProcessPPOTrainer
from rlhf_prm.rl.ppo_config import ProcessPPOConfig
from rlhf_prm.rl.rollout_scoring import RolloutScoring, step_rollouts
from rlhf_prm.rl.step_advantages import StepAdvantages
from rlhf_prm.rl.token_scoring import step_scores
from rlhf_prm.rl.turn_scores import turn_scores
from rlhf_prm.steps import StepSplitter
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class IdScorer:
    """A token's score is its id / 100, less 1/20 at each place; it notes what it was given, and learns by counting."""

    needs_log_probs = True

    def __init__(self, learns="before"):
        self.learns, self.events, self.seen, self.updates = learns, [], [], 0

    def score_tokens(self, rollouts):
        self.events.append("score")
        self.seen += rollouts
        return [torch.tensor(one.completion_ids) / 100 - 0.05 for one in rollouts]

    def update(self, rollouts):
        self.events.append("update")
        self.updates += 1
        return {"learnt_rows": float(len(rollouts))}

    def state_dict(self):
        return {"updates": torch.tensor(self.updates)}

    def load_state_dict(self, state):
        self.updates = int(state["updates"])


def trainer_of(folder, scorer, trainer_class=ProcessGRPOTrainer, **settings):
    config_class = {"config_class": ProcessPPOConfig} if trainer_class is ProcessPPOTrainer else {}
    return trainer_class(
        model=tiny_policy(),
        args=tiny_config(folder, **config_class, **settings),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=scorer,
        verifier=DigitVerifier(),
    )


def test_step_scores_are_the_odds_so_far():
    found = step_scores(torch.tensor([1.0, -3.0, 0.5, math.nan]), [1, 2, 1])
    assert found[:2] == pytest.approx([1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(1.5))]) and math.isnan(found[2])


def test_advantages_are_the_methods_on_the_policys_own_tokens(tmp_path):
    """Every batch: the scorer got the ids and log-probabilities; the advantages the loss sees are the method's."""
    scorer = IdScorer()
    trainer = trainer_of(
        tmp_path, scorer, method="distil", method_kwargs={"teacher_weight": 0.5}, max_steps=2, log_completions=True
    )
    seen, generate = [], trainer._generate_and_score_completions

    def keep(inputs):
        first = len(scorer.seen)
        output = generate(inputs)
        seen.append((output, trainer.last_rollouts, scorer.seen[first:]))
        return output

    trainer._generate_and_score_completions = keep
    trainer.train()
    output, batch, given = seen[0]
    mask = output["completion_mask"].bool()
    wanted = TOKEN_METHODS["distil"](batch.rollouts, teacher_weight=0.5)
    torch.testing.assert_close(output["advantages"][mask], wanted[mask[:, : wanted.shape[1]]])
    assert not output["advantages"][~mask].any() and output["advantages"][0].unique().numel() > 2
    for row, one in enumerate(given):
        ids = output["completion_ids"][row][mask[row]].tolist()
        assert one.completion_ids == ids
        assert one.prompt_ids == output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
        torch.testing.assert_close(batch.rollouts.token_scores[row, : len(ids)], torch.tensor(ids) / 100 - 0.05)
    means = batch.step_advantages[0] * batch.rollouts.token_counts[0]
    torch.testing.assert_close(means.sum(), output["advantages"][0].sum())
    logged = [entry for entry in trainer.state.log_history if "process/token_score/mean" in entry]
    assert len(logged) == 2 and logged[0]["process/token_score/abs_max"] > 0 and logged[0]["prm/learnt_rows"] == 8
    assert scorer.events == ["update", "score"] * 2
    assert trainer._logs["extra"]["token_scores"][-1] == pytest.approx(
        [score for score in (torch.tensor(scorer.seen[-1].completion_ids) / 100 - 0.05).tolist()], abs=1e-4
    )
    texts, lengths = trainer._logs["extra"]["tokens"][-1], trainer._logs["extra"]["step_lengths"][-1]
    assert len(texts) == len(scorer.seen[-1].completion_ids) == sum(lengths)
    ids = scorer.seen[-1].completion_ids
    assert "".join(texts) == trainer.processing_class.decode(ids, skip_special_tokens=True)


def test_log_probs_are_the_policys_at_its_temperature(tmp_path):
    """Against one forward per rollout; rows of different lengths, prompts too."""
    trainer = trainer_of(tmp_path, IdScorer(), method="distil", temperature=0.7)
    prompts, completions = [[5, 6, 7], [8]], [[9, 3], [10, 11, 12]]
    found = policy_log_probs(trainer, prompts, completions)
    for prompt, ids, got in zip(prompts, completions, found, strict=True):
        with torch.no_grad():
            logits = trainer.model(torch.tensor([prompt + ids])).logits[0] / 0.7
        wanted = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("learns", ["before", "after"])
def test_both_orders_and_nothing_is_learnt_in_evaluation(tmp_path, learns):
    scorer = IdScorer(learns)
    scoring = RolloutScoring(StepSplitter(), tiny_tokenizer(), scorer, DigitVerifier())
    scoring.of_tokens.prompt_ids = lambda prompts: [[4]] * len(prompts)
    scoring.of_tokens.log_probs = lambda prompts, ids: [torch.zeros(len(row)) for row in ids]
    call = (["p"], ["p"], ["3"], [[5, 6]])
    scoring(*call, learning=True)
    assert scorer.events == (["update", "score"] if learns == "before" else ["score", "update"])
    assert scoring.learnt == {"learnt_rows": 1.0}
    (row,) = scoring(*call)
    assert scorer.events[-1] == "score" and scorer.updates == 1 and scoring.learnt == {}
    assert row.scores == pytest.approx(torch.tensor([0.01]).sigmoid().tolist())
    assert step_rollouts([row], torch.tensor([1.0]), 1).token_scores.tolist() == [pytest.approx([0.0, 0.01])]


def test_step_methods_serve_token_scorers_too(tmp_path):
    trainer = trainer_of(tmp_path, IdScorer(), method="immediate", max_steps=1)
    trainer.train()
    batch = trainer.last_rollouts
    assert 0 < batch.rollouts.step_scores[batch.rollouts.step_mask].min() < batch.rollouts.step_scores.max() < 1


def test_what_the_scorer_has_learnt_is_in_the_checkpoint(tmp_path):
    settings = dict(method="distil", save_strategy="steps", save_steps=2, max_steps=3)
    trainer_of(tmp_path, IdScorer(), **settings).train()
    again = IdScorer()
    trainer_of(tmp_path, again, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.updates == 3  # two of the checkpoint's, one of its own
    (tmp_path / "checkpoint-2" / SCORER_FILE).unlink()
    with pytest.raises(ValueError, match=r"without step_scorer.pt, in which step_scorer IdScorer keeps its state"):
        trainer_of(tmp_path, IdScorer(), **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_ppo_pays_every_token_what_it_scored(tmp_path):
    """λ = 1, γ = 1, no critic yet to speak of: returns are the sums of what is left, token scores and outcome."""
    settings = dict(shaping="token_scores", process_weight=2.0, whiten_advantages=False, max_steps=1, num_generations=2)
    trainer = trainer_of(tmp_path, IdScorer(), ProcessPPOTrainer, **settings)
    seen, generate = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(generate(inputs)) or seen[-1]
    trainer.train()
    output, rollouts = seen[0], trainer.last_rollouts.rollouts
    for row, n in enumerate(rollouts.token_counts.sum(1).tolist()):
        rewards = 2.0 * rollouts.token_scores[row, :n]
        rewards[-1] += rollouts.outcome_rewards[row]
        wanted = rewards.flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(output["returns"][row, :n], wanted, atol=1e-4, rtol=1e-4)


def test_ppo_pays_no_token_scores_where_there_is_no_credit(tmp_path):
    """Tokens of thinking are paid nothing by themselves; what the answer earns still reaches them."""
    settings = dict(shaping="token_scores", process_weight=2.0, whiten_advantages=False, max_steps=1, num_generations=2)
    tags = {"think_tags": [" a", " ="], "think_opened": True, "credit_reads": "answer"}
    trainer = trainer_of(tmp_path, IdScorer(), ProcessPPOTrainer, **settings, **tags)
    seen, generate = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(generate(inputs)) or seen[-1]
    trainer.train()
    batch, both = trainer.last_rollouts, 0
    for i, row in enumerate(batch.rows):
        paid = torch.tensor([credit for credit, n in zip(row.credited, row.lengths, strict=True) for _ in range(n)])
        both += 0 < paid.sum() < len(paid)
        rewards = 2.0 * batch.rollouts.token_scores[i, : len(paid)] * paid
        rewards[-1] += batch.rollouts.outcome_rewards[i]
        wanted = rewards.flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(seen[0]["returns"][i, : len(paid)], wanted, atol=1e-4, rtol=1e-4)
    assert both  # the test can fail


def test_turn_scores_that_nothing_would_read_are_refused(tmp_path):
    unread = r"turn_scores: got .* beside a method or shaping that reads token scores"
    for settings in ({"method": "distil"}, {"config_class": ProcessPPOConfig, "shaping": "token_scores"}):
        with pytest.raises(ValueError, match=unread):
            tiny_config(tmp_path, turn_scores="environment", **settings)
    with pytest.raises(ValueError, match=unread):
        tiny_config(tmp_path, method="immediate", turn_scores="environment").baseline("prime")
    with pytest.raises(ValueError, match=unread):
        turn_scores(tiny_config(tmp_path, method="distil"), HashScorer(), True, [])


def test_methods_and_shapings_of_tokens_need_token_scores(tmp_path):
    with pytest.raises(ValueError, match=r"'distil' reads token scores: got step_scorer HashScorer"):
        trainer_of(tmp_path, HashScorer(), method="distil")
    with pytest.raises(ValueError, match=r"'token_scores': got step_scorer HashScorer"):
        trainer_of(tmp_path, HashScorer(), ProcessPPOTrainer, shaping="token_scores")
    with pytest.raises(ValueError, match="shaping_kwargs: got"):
        trainer_of(tmp_path, IdScorer(), ProcessPPOTrainer, shaping="token_scores", shaping_kwargs={"gamma": 1.0})


def test_a_scorer_of_steps_that_would_learn_is_refused(tmp_path):
    """It would never be updated, while every checkpoint held its state."""
    scorer = HashScorer()
    scorer.update = lambda rollouts: {}
    with pytest.raises(ValueError, match="got HashScorer with update and without score_tokens"):
        trainer_of(tmp_path, scorer)


@pytest.mark.parametrize("method", ["trusted", "trusted_tokens"])
def test_trust_is_not_measured_on_outcomes_that_the_scorer_has_just_learnt(tmp_path, method):
    with pytest.raises(ValueError, match=rf"'{method}' trusts .* got a IdScorer with order 'before'.*order 'after'"):
        trainer_of(tmp_path, IdScorer("before"), method=method)
    trainer_of(tmp_path, IdScorer("after"), method=method)
    trainer_of(tmp_path, IdScorer("before"), method=method, method_kwargs={"process_weight": 0.0})  # not read


def test_a_mapping_that_is_no_schedule_is_the_methods_own():
    """The keywords of the method that ``distil`` adds to; a schedule beside it stays one."""
    weight = {"start": 1.0, "end": 0.0, "updates": 2}
    given = {"method": "immediate", "method_kwargs": {"process_weight": 0.25}, "teacher_weight": weight}
    rollouts = StepRollouts(
        step_scores=torch.tensor([[0.9], [0.1]]), step_mask=torch.ones(2, 1, dtype=torch.bool),
        step_lengths=torch.tensor([[2], [1]]), outcome_rewards=torch.tensor([1.0, 0.0]), num_generations=2,
        token_scores=torch.tensor([[0.3, -0.1], [0.2, 0.0]]),
    )  # fmt: skip
    wanted = METHODS["immediate"](rollouts, process_weight=0.25)
    found = StepAdvantages("distil", given)(rollouts, 2)
    torch.testing.assert_close(found, step_to_token(wanted, rollouts.step_lengths, 2))
    with pytest.raises(ValueError, match="schedule: got keys"):
        StepAdvantages("distil", {"teacher_weight": {"start": 1.0, "end": 0.0}})


def test_process_scale_shrinks_to_the_outcome():
    advantages = StepAdvantages("distil", {"teacher_weight": 3.0})
    rows = dict(
        step_scores=torch.full((2, 1), 0.5), step_mask=torch.ones(2, 1, dtype=torch.bool),
        step_lengths=torch.tensor([[2], [1]]), outcome_rewards=torch.tensor([1.0, 0.0]), num_generations=2,
        token_scores=torch.tensor([[0.3, -0.1], [0.2, 0.0]]),
    )  # fmt: skip
    batch = StepRollouts(**rows)
    outcome = step_to_token(METHODS["outcome"](batch), batch.step_lengths, 2)
    torch.testing.assert_close(advantages(batch, 0, process_scale=0.0), outcome)
    torch.testing.assert_close(advantages(batch, 0, 0.5) - outcome, (advantages(batch, 0) - outcome) / 2)


def wrong_shape(rollouts):
    return rollouts.token_scores[:, :1]


wrong_shape.per_token = True


def test_ones_own_token_method_is_tried_first():
    with pytest.raises(
        ValueError, match=r"got \(4, 1\) for 4 rollouts of 2 steps and 5 tokens, expected finite \(4, 5\)"
    ):
        StepAdvantages("tests.rl.test_token_scores.wrong_shape", {})
