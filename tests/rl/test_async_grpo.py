"""Dense advantages in TRL's AsyncGRPO are the synchronous trainer's on the same rollouts, up to the packing."""

import asyncio
import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler
from trl.experimental.async_grpo import AsyncGRPOConfig, async_grpo_trainer as their_trainer
from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker, RolloutGroup, TrainingSequence
from trl.experimental.async_grpo.packing import TreeRow

from rlhf_prm.rl.async_grpo import DenseRolloutLoop, ProcessAsyncGRPOTrainer, ProcessCredit, TokenAdvantages
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.parts import Reading
from rlhf_prm.rl.trl_seam import pack_token_advantages
from rlhf_prm.steps import StepSplitter
from rlhf_prm.thinking import Thinking
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


def credit(**changes) -> ProcessCredit:
    return ProcessCredit(**({"method": "immediate", "scorer": HashScorer, "verifier": DigitVerifier} | changes))


def worker_loop(given: ProcessCredit) -> DenseRolloutLoop:
    """The loop as it scores; it does not generate."""
    loop = object.__new__(DenseRolloutLoop)
    loop.reward_funcs, loop.reward_func_names, loop._env_reward_types = [given], ["verifier"], []
    given.prepare(tiny_tokenizer())
    return loop


def group_of(batch, completion_ids, prompt_ids, first: int, size: int) -> RolloutGroup:
    """Rollouts of the synchronous trainer as a group of TRL's worker."""
    rows, sequences = batch.rows[first : first + size], []
    for ids, prompt in zip(completion_ids[first : first + size], prompt_ids[first : first + size], strict=True):
        mask, given = [0] * len(prompt) + [1] * len(ids), prompt + ids
        sequences.append([TrainingSequence(given, mask, [0.0] * len(mask), rollout_id=0)])
    return RolloutGroup(
        prompts=[row.prompt for row in rows],
        reward_kwargs={"solution": [row.solution for row in rows]},
        completions=[row.text for row in rows],
        completions_ids=completion_ids[first : first + size],
        completions_sequences=sequences,
        tool_call_counts=[0] * size,
        tool_failure_counts=[0] * size,
        model_version=0,
        group_id=first,
        env_rewards=[None] * size,
        rollout_rewards=[None] * size,
    )


@pytest.fixture(scope="module")
def synchronous(tmp_path_factory):
    """A batch of the synchronous trainer: (ScoredBatch, output, completion ids, prompt ids)."""
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(tmp_path_factory.mktemp("sync"), max_steps=1),
        train_dataset=tiny_dataset(),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
    )
    outputs, theirs = [], trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: outputs.append(theirs(inputs)) or outputs[-1]
    trainer.train()
    output = outputs[0]
    ids, prompts = (
        [row[mask.bool()].tolist() for row, mask in zip(output[f"{name}_ids"], output[f"{name}_mask"], strict=True)]
        for name in ("completion", "prompt")
    )
    return trainer.last_rollouts, output, ids, prompts


def test_the_same_advantages_as_the_synchronous_trainer(synchronous):
    """At staleness 0: token by token, and also where TRL's loss takes them, behind its packing."""
    batch, output, completion_ids, prompt_ids = synchronous
    loop, row = worker_loop(credit()), TreeRow()
    pack_token_advantages()
    pack_token_advantages()  # once is enough
    expected = []
    for first in (0, 4):
        samples = asyncio.run(loop._score_group(group_of(batch, completion_ids, prompt_ids, first, 4)))
        for number, sample in enumerate(pickle.loads(pickle.dumps(samples)), start=first):
            own = output["advantages"][number][output["completion_mask"][number].bool()]
            got = sample.advantage.tokens[sample.completion_mask.astype(bool)]
            np.testing.assert_allclose(got, own.numpy(), atol=1e-6)
            assert float(sample.advantage) == pytest.approx(own.mean().item(), abs=1e-6)
            assert sample.metrics["process/num_steps/mean"] == len(batch.rows[number].steps)
            row.add(
                {
                    name: getattr(sample, name)
                    for name in ("input_ids", "completion_mask", "old_log_probs", "advantage", "group_id")
                }
            )
            expected.append(own)
    assert any(len(set(own.tolist())) > 1 for own in expected)  # not one number per sample
    torch.testing.assert_close(row.pack()["advantages"], torch.cat(expected), atol=1e-6, rtol=0)


def test_samples_with_one_number_are_packed_as_before():
    pack_token_advantages()
    arrays = {"input_ids": np.array([1, 2, 3]), "completion_mask": np.array([0, 1, 1])}
    row = TreeRow()
    row.add(arrays | {"old_log_probs": np.zeros(3), "advantage": 0.5, "group_id": 0})
    assert row.pack()["advantages"].tolist() == [0.5, 0.5]


def test_credit_goes_to_the_worker_without_what_it_made_here():
    given = credit()
    given.prepare(tiny_tokenizer())
    with pytest.raises(ValueError, match="before prepare"):
        pickle.loads(pickle.dumps(given))(prompts=["p"], completion_ids=[[3]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "trusted"}, "'trusted' remembers whole batches"),
        ({"method": "prime"}, "reads the policy's token scores"),
        ({"scorer": None}, "needs step scores"),
        ({"method": "nothing"}, "nothing"),
    ],
)
def test_methods_that_a_worker_cannot_serve_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        credit(**changes)


def test_more_rows_than_completions_are_refused(synchronous):
    batch, _, completion_ids, prompt_ids = synchronous
    group = group_of(batch, completion_ids, prompt_ids, 0, 4)
    group.completions_sequences[0] *= 2
    with pytest.raises(ValueError, match="5 training rows for 4 completions"):
        asyncio.run(worker_loop(credit())._score_group(group))


def test_the_trainer_runs_our_loop_in_trls_worker(monkeypatch):
    """Constructed without a server: what TRL's own constructor is given, and which loop its worker gets."""
    seen = {}

    def constructed(self, model, **arguments):
        seen.update(arguments)
        self.processing_class = None
        self.rollout_worker = object.__new__(AsyncRolloutWorker)

    monkeypatch.setattr("trl.experimental.async_grpo.AsyncGRPOTrainer.__init__", constructed)
    given, extra, args = credit(), partial(max, 1), object.__new__(AsyncGRPOConfig)
    trainer = ProcessAsyncGRPOTrainer("policy", args, credit=given, reward_funcs=extra, train_dataset=[])
    assert seen["reward_funcs"] == [given, extra] and trainer.rollout_worker._loop_cls is DenseRolloutLoop
    assert AsyncRolloutWorker._loop_cls is not DenseRolloutLoop
    with pytest.raises(ValueError, match="tools: got one, expected none"):
        ProcessAsyncGRPOTrainer("policy", args, credit=given, tools=[max])


class Told(DigitVerifier):
    in_thought = None


class Follows(HashScorer):
    def follow_separator(self, separator):
        self.separator = separator


def thinking_trainer(monkeypatch, given, **settings) -> ProcessAsyncGRPOTrainer:
    """Without a server, of a policy whose template opens the thought where ``think`` is true."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}{% if think %}<think>{% endif %}"

    def constructed(self, model, **arguments):
        self.processing_class, self.rollout_worker = tokenizer, None
        self.args, self.callbacks = arguments["args"], arguments["callbacks"]

    monkeypatch.setattr("trl.experimental.async_grpo.AsyncGRPOTrainer.__init__", constructed)
    args = object.__new__(AsyncGRPOConfig)
    vars(args).update({"chat_template_kwargs": {"think": True}, **settings})
    rows = [{"prompt": [{"role": "user", "content": "3?"}]}]
    return ProcessAsyncGRPOTrainer("policy", args, credit=given, train_dataset=rows)


def test_the_worker_is_told_of_thoughts_and_of_the_separator(monkeypatch):
    scorer, verifier = Follows(), Told()
    given = credit(scorer=lambda: scorer, verifier=lambda: verifier, splitter=StepSplitter("; "))
    given.prepare(tiny_tokenizer())
    assert verifier.in_thought is None and scorer.separator == "; "
    thinking_trainer(monkeypatch, given)
    given.prepare(tiny_tokenizer())
    assert verifier.in_thought is True
    with pytest.raises(ValueError, match="think_opened: got False, but the prompts end in <think>"):
        thinking_trainer(monkeypatch, credit(reading=Reading(Thinking())))


class Worker:
    """Keeps what TRL's worker process would be given when it starts."""

    def __init__(self, credit):
        self.credit = credit

    def start(self):
        self.given = pickle.loads(pickle.dumps(self.credit))


def started(monkeypatch, update: int, sent_before: int) -> ProcessCredit:
    """The worker's credit in a run that begins at ``update``, after TRL's own callback, with a version every 4."""
    given = credit()
    trainer = thinking_trainer(monkeypatch, given, weight_sync_steps=4)
    trainer.model_version, trainer.weight_transfer = sent_before, None
    trainer.rollout_worker, trainer.accelerator = Worker(given), SimpleNamespace(is_main_process=True)

    def send():
        trainer.model_version += 1

    trainer._sync_weight = send
    callbacks = [*trainer.callbacks, their_trainer._TrainBeginCallback(trainer)]
    handler = CallbackHandler(callbacks, None, None, None, None)
    handler.on_train_begin(trainer.args, TrainerState(global_step=update), TrainerControl())
    return trainer.rollout_worker.given


def test_schedules_count_updates_and_not_the_versions_that_are_sent(monkeypatch):
    """The first weights are version 1; every 4 updates come the next. A resumed run sends its weights once more."""
    versions = started(monkeypatch, update=0, sent_before=0).sent_versions
    assert [versions.update_of(version) for version in (0, 1, 2, 3)] == [0, 0, 4, 8]
    versions = started(monkeypatch, update=8, sent_before=3).sent_versions
    assert [versions.update_of(version) for version in (4, 5, 6)] == [8, 12, 16]
    versions = started(monkeypatch, update=10, sent_before=3).sent_versions  # sent after updates 12, 16, …
    assert [versions.update_of(version) for version in (4, 5, 6)] == [10, 12, 16]
    versions = started(monkeypatch, update=8, sent_before=0).sent_versions  # TRL does not restore it with a stream
    assert [versions.update_of(version) for version in (1, 2, 3)] == [8, 12, 16]


def test_weights_whose_updates_round_away_are_refused(monkeypatch):
    low = {"learning_rate": 1e-6, "deepspeed_plugin": None, "fsdp_plugin_args": None}
    with pytest.raises(ValueError, match="learning_rate: got 1e-06 for bfloat16 weights"):
        thinking_trainer(monkeypatch, credit(), dtype="bfloat16", **low)


def test_one_number_and_its_tokens():
    made = TokenAdvantages(np.array([0, 1, 3]), np.array([0, 1, 1]))
    assert float(made) == 2.0 and made.tokens.tolist() == [0, 1, 3]
