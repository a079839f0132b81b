"""Killed in the middle and resumed: the same run, to the last bit."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.folder import MetricsFile
from tests.killed import killed
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class Kill(TrainerCallback):
    def __init__(self, after: int | None) -> None:
        self.after = after

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, kill_after: int | None = None, resume: bool = False) -> None:
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "log_completions": True}
    settings |= {"num_completions_to_print": 0, "method": "immediate", "disable_tqdm": False}
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, **settings),
        train_dataset=tiny_dataset(16),
        processing_class=tiny_tokenizer(),
        step_scorer=HashScorer(),
        verifier=DigitVerifier(),
        callbacks=[MetricsFile(folder), Kill(kill_after)],
    )
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(folder / "policy"))


def train_whole_and_cut(root: Path) -> None:
    train(root / "whole")
    train(root / "cut", kill_after=5)


@pytest.fixture
def one_thread():
    """As the process that is killed: sums in another order are other sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def numbers(folder: Path) -> list[dict]:
    """Every log but what a clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "step_time", "train_", "_per_second")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in rows]


def test_sigkill_and_resume_is_the_uninterrupted_run(tmp_path, one_thread):
    killed(train_whole_and_cut, tmp_path)
    assert len(numbers(tmp_path / "cut")) == 4  # killed inside update 5, before its log
    train(tmp_path / "cut", resume=True)
    whole, cut = numbers(tmp_path / "whole"), numbers(tmp_path / "cut")
    assert [row["step"] for row in cut] == [1, 2, 3, 4, 5, 6, 6]
    assert cut == whole
    weights = [load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in"):
        checkpoint_to_resume(tiny_config(tmp_path, resume_from_checkpoint="true"))
    assert checkpoint_to_resume(tiny_config(tmp_path)) is None


def test_a_reference_that_follows_the_policy_goes_on_where_it_was(tmp_path):
    """TRL loads it anew from the policy before training, and moves it in memory only."""

    def run(folder, resume=None):
        moves = {"beta": 0.1, "sync_ref_model": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 1}
        trainer = ProcessGRPOTrainer(
            model=str(tmp_path / "policy"),
            args=tiny_config(folder, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-2, **moves),
            train_dataset=tiny_dataset(16),
            processing_class=tiny_tokenizer(),
            step_scorer=HashScorer(),
            verifier=DigitVerifier(),
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer.ref_model.state_dict(), [row["kl"] for row in trainer.state.log_history if "kl" in row]

    tiny_policy().save_pretrained(tmp_path / "policy")
    tiny_tokenizer().save_pretrained(tmp_path / "policy")
    whole, kl = run(tmp_path / "run")
    again, kl_again = run(tmp_path / "run", str(tmp_path / "run" / "checkpoint-2"))
    assert kl_again == pytest.approx(kl) and kl[-1] > 0
    assert all(torch.equal(weight, again[name]) for name, weight in whole.items())
