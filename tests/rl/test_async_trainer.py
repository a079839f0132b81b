"""The whole asynchronous trainer on a CPU: TRL's worker, queue and loss end in the synchronous trainer's weights.

A server in this process samples with the weights that it was sent; what else stands in is said in ``async_stand_ins``.
"""

import pytest
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import set_seed
from trl.chat_template_utils import qwen2_5_chat_template
from trl.experimental.async_grpo import AsyncGRPOConfig
from trl.experimental.async_grpo.async_grpo_trainer import DataCollatorForRollout

from rlhf_prm.rl.async_grpo import ProcessAsyncGRPOTrainer, ProcessCredit
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.rl.async_stand_ins import Server, on_a_cpu, scorer_of_the_worker
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

UPDATES, GROUP, LONGEST = 3, 4, 20
SETTINGS = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_steps": UPDATES}


@pytest.fixture
def policy(tmp_path):
    """A folder of the policy and its tokenizer, whose template is one that TRL's worker knows."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = qwen2_5_chat_template
    tiny_policy().save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy", tokenizer


def messages() -> Dataset:
    return tiny_dataset().map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})


def asynchronous(policy, tokenizer, folder, monkeypatch, in_a_thread: bool):
    """A trained trainer; what the server was asked; the samples of each update, in its order."""
    batches, theirs = [], DataCollatorForRollout.torch_call

    def recorded(self, examples):
        batches.append([sample for row in examples[0] for sample in row.samples])
        return theirs(self, examples)

    monkeypatch.setattr(DataCollatorForRollout, "torch_call", recorded)
    with Server(tiny_policy(), tokenizer.eos_token_id) as server, on_a_cpu(in_a_thread):
        args = AsyncGRPOConfig(
            output_dir=str(folder),
            vllm_server_base_url=server.url,
            per_device_train_batch_size=2 * GROUP,
            num_generations=GROUP,
            max_completion_length=LONGEST,
            max_staleness=0,
            token_budget=0,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **SETTINGS,
        )
        trainer = ProcessAsyncGRPOTrainer(
            str(policy),
            args,
            credit=ProcessCredit("immediate", scorer_of_the_worker, DigitVerifier),
            train_dataset=messages(),
            processing_class=tokenizer,
            weight_transfer=server,
        )
        trainer.train()
    return trainer, server, batches[:UPDATES]


def synchronous(tokenizer, folder, batches):
    """A trainer that trained on the same completions, and its inputs of each update."""
    rows, waiting, inputs = messages(), iter(batches), []
    asked = [sample["group_id"] % len(rows) for batch in batches for sample in batch[::GROUP]]

    def rollouts(prompts, trainer):
        batch = next(waiting)
        masks = [sample["completion_mask"].astype(bool) for sample in batch]
        return {
            "prompt_ids": [sample["input_ids"][~mask].tolist() for sample, mask in zip(batch, masks, strict=True)],
            "completion_ids": [sample["input_ids"][mask].tolist() for sample, mask in zip(batch, masks, strict=True)],
            "logprobs": [sample["old_log_probs"][mask].tolist() for sample, mask in zip(batch, masks, strict=True)],
        }

    config = tiny_config(folder, loss_type="bnpo", shuffle_dataset=False, max_completion_length=LONGEST, **SETTINGS)
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=config,
        train_dataset=rows.select(asked),
        processing_class=tokenizer,
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        rollout_func=rollouts,
    )
    theirs = trainer._generate_and_score_completions

    def with_the_servers_log_probs(rows):
        output, batch = theirs(rows), batches[len(inputs)]
        told = [torch.tensor(s["old_log_probs"][s["completion_mask"].astype(bool)]) for s in batch]
        output["old_per_token_logps"] = pad_sequence(told, batch_first=True)
        inputs.append(output)
        return output

    trainer._generate_and_score_completions = with_the_servers_log_probs
    trainer.train()
    return trainer, inputs


@pytest.mark.parametrize("in_a_thread", [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_three_updates_end_in_the_weights_of_the_synchronous_trainer(policy, tmp_path, monkeypatch, in_a_thread):
    """In the worker's own process (slow), and with its loop in a thread of this one."""
    path, tokenizer = policy
    set_seed(0)
    trained, server, batches = asynchronous(path, tokenizer, tmp_path / "async", monkeypatch, in_a_thread)
    reference, inputs = synchronous(tokenizer, tmp_path / "sync", batches)

    for batch, expected in zip(batches, inputs, strict=True):
        of_groups = [sample["group_id"] for sample in batch]
        assert len(batch) == 2 * GROUP and of_groups == [group for group in of_groups[::GROUP] for _ in range(GROUP)]
        for sample, own in zip(batch, expected["advantages"], strict=True):
            got = torch.tensor(sample["advantage"].tokens[sample["completion_mask"].astype(bool)])
            torch.testing.assert_close(got, own[: len(got)], atol=1e-6, rtol=0)
    assert any(len(set(own[own != 0].tolist())) > 1 for own in inputs[0]["advantages"])  # not one number per sample

    logs, theirs = ([row for row in one.state.log_history if "loss" in row] for one in (trained, reference))
    assert [row["sample/staleness_max"] for row in logs] == [0.0] * UPDATES
    assert logs[0]["ratio"] == pytest.approx(1, abs=1e-5)  # the weights that sampled are those that learn
    assert logs[0]["process/num_steps/mean"] >= 1  # metrics are of all that the worker has scored, some of it for later
    assert 0 < logs[0]["rewards/verifier"] < 1
    for ours, other in zip(logs, theirs, strict=True):
        assert ours["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    first = dict(tiny_policy().named_parameters())
    for name, weight in trained.model.named_parameters():
        torch.testing.assert_close(weight, reference.model.get_parameter(name), atol=2e-5, rtol=1e-4)
        assert not torch.equal(weight, first[name])
    # The server has what was trained: sent once before the first update, and after each.
    assert server.synchronisations == UPDATES + 1
    torch.testing.assert_close(server.policy.state_dict(), trained.model.state_dict())
