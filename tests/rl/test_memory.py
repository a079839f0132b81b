"""Methods that remember: once per generation batch, not in evaluation, through checkpoints and rollbacks."""

import re
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from reward import METHODS, StepRollouts
from rlhf_prm.guard.last_good import LastGood
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.rl.step_advantages import StepAdvantages
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

COUNTING = "tests.rl.counting_method.counting"


def rollouts_of(scores, outcomes=(0.0, 0.0)) -> StepRollouts:
    """One group of rollouts with as many steps each, of 2 tokens."""
    table = torch.tensor(scores)
    return StepRollouts(
        table, torch.ones_like(table).bool(), 2 * torch.ones_like(table).long(), torch.tensor(outcomes), len(table)
    )


def trainer_of(folder, *, method=COUNTING, callbacks=None, eval_dataset=None, **settings):
    return ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, method=method, **settings),
        train_dataset=tiny_dataset(),
        eval_dataset=eval_dataset,
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=callbacks,
    )


def batches(trainer) -> float:
    return trainer.step_advantages.memory["batches"].item()


# --- the method alone -------------------------------------------------------------------------------------------------


def test_the_memory_goes_from_batch_to_batch():
    rollouts, method = rollouts_of([[0.5, 0.25], [1.0, 0.0]]), StepAdvantages(COUNTING, {"weight": 2.0})
    assert method.memory["batches"] == 0  # trying the method has left no trace
    given = [method(rollouts, update=0)[0, 0].item() for _ in range(3)]
    assert given == [0.0, 2.0, 4.0]
    assert method.memory["batches"] == 3 and method.memory["scores"] == 1.5


def test_without_remembering_the_memory_is_used_and_left_alone():
    rollouts, method = rollouts_of([[0.5, 0.25], [1.0, 0.0]]), StepAdvantages(COUNTING, {})
    method(rollouts, update=0)
    for _ in range(2):
        assert method(rollouts, update=0, remember=False)[0, 0] == 1.0
    assert method.memory["batches"] == 1 and method.memory["scores"] == 0.5


def test_a_scaled_method_remembers_too():
    rollouts, method = rollouts_of([[0.5, 0.25], [1.0, 0.0]], outcomes=[1.0, 0.0]), StepAdvantages(COUNTING, {})
    method(rollouts, update=0)
    half = method(rollouts, update=0, process_scale=0.5)
    torch.testing.assert_close(half, 0.5 * METHODS["outcome"](rollouts) + 0.5)
    assert method.memory["batches"] == 2


def test_the_state_is_a_copy_that_goes_on_elsewhere():
    rollouts, method, other = rollouts_of([[0.5]], [1.0]), StepAdvantages(COUNTING, {}), StepAdvantages(COUNTING, {})
    method(rollouts, update=0)
    state = method.state_dict()
    method(rollouts, update=0)
    assert state["batches"] == 1
    other.load_state_dict(state)
    state["batches"] += 5
    assert torch.equal(other(rollouts, update=0), torch.ones(1, 1)) and other.memory["batches"] == 2


def test_a_method_without_memory_has_an_empty_state():
    method = StepAdvantages("outcome", {})
    method.load_state_dict({})
    assert method.state_dict() == {}
    with pytest.raises(ValueError, match=r"(?s)'outcome'.*saved memory is.*batches.*expected \{\}"):
        method.load_state_dict(StepAdvantages(COUNTING, {}).state_dict())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("without_memory", r"got Tensor, expected \(advantages, memory\)"),
        ("renamed", r"the memory it returned is \{'batch': .*expected \{'batches': 'torch.float32 \(\)'"),
        ("whole_numbers", r"initial_memory\(\).*float32"),
    ],
)
def test_a_wrong_memory_is_refused_before_training(name, message):
    with pytest.raises(ValueError, match=f"(?s){name}.*{message}"):
        StepAdvantages(f"tests.rl.counting_method.{name}", {})


def test_the_example_of_the_docs_page_remembers(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "initial_memory" in block)
    (tmp_path / "docs_example.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    method = StepAdvantages("docs_example.surprise", {"rate": 0.5})
    given = method(rollouts_of([[1.0, 0.0], [1.0, 1.0]]), update=0)
    torch.testing.assert_close(given, torch.tensor([[0.5, -0.5], [0.5, 0.5]]))
    assert method.memory["mean"] == 0.625  # halfway from 0.5 to 0.75


# --- in the trainer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "generated"),
    [
        ({}, 4),
        ({"num_iterations": 2}, 2),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}, 4),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "steps_per_generation": 4}, 2),
        ({"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "steps_per_generation": 1}, 8),
    ],
)
def test_one_call_per_generation_batch(tmp_path, settings, generated):
    trainer = trainer_of(tmp_path, max_steps=4, **settings)
    trainer.train()
    assert batches(trainer) == generated


def test_evaluation_leaves_the_memory_alone(tmp_path):
    settings = dict(max_steps=3, eval_strategy="steps", eval_steps=1, eval_on_start=True, num_generations_eval=1)
    trainer = trainer_of(tmp_path, eval_dataset=tiny_dataset(8), **settings)
    seen, log = [], trainer._log_rollouts

    def recorded(mode: str) -> None:
        seen.append((mode, trainer.last_rollouts.step_advantages[0, 0].item()))
        log(mode)

    trainer._log_rollouts = recorded
    trainer.train()
    assert batches(trainer) == 3
    assert seen == [("eval", 0), ("train", 0), ("eval", 1), ("train", 1), ("eval", 2), ("train", 2), ("eval", 3)]


def test_a_resumed_run_remembers_what_the_whole_one_did(tmp_path):
    whole = trainer_of(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = trainer_of(tmp_path, max_steps=4, save_strategy="no")
    assert batches(resumed) == 0
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert batches(resumed) == 4
    expected = whole.step_advantages.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.step_advantages.state_dict().items())
    assert torch.equal(whole.last_rollouts.step_advantages, resumed.last_rollouts.step_advantages)


def test_a_checkpoint_without_the_memory_is_refused(tmp_path):
    trainer_of(tmp_path, method="outcome", max_steps=2, save_strategy="steps", save_steps=2).train()
    checkpoint = tmp_path / "checkpoint-2"
    assert not (checkpoint / "step_advantages.pt").exists()
    with pytest.raises(ValueError, match=r"checkpoint-2 without step_advantages.pt.*counting"):
        trainer_of(tmp_path, max_steps=4).train(resume_from_checkpoint=str(checkpoint))


def test_a_rollback_brings_the_memory_back(tmp_path):
    class Back(TrainerCallback):
        """Keeps update 1, goes back to it after update 3."""

        def on_step_end(self, args, state, control, **_):
            if state.global_step == 1:
                self.good = LastGood(self.trainer, tmp_path / "kept")
                self.good.save(1)
            if state.global_step == 3:
                assert batches(self.trainer) == 3
                self.good.restore()
                assert batches(self.trainer) == 1

    back = Back()
    back.trainer = trainer_of(tmp_path, max_steps=4, callbacks=[back])
    back.trainer.train()
    assert batches(back.trainer) == 2
