"""Killed in the middle and resumed: the same run, to the last bit."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import os, signal, sys
from transformers import TrainerCallback
from rlhf_prm.runs.folder import MetricsFile
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer

class Kill(TrainerCallback):
    def __init__(self, after):
        self.after = after

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.after:
            os.kill(os.getpid(), signal.SIGKILL)

def train(folder, kill_after=None, resume=None):
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=tiny_config(folder, max_steps=6, save_strategy="steps", save_steps=2, log_completions=True,
                         num_completions_to_print=0, method="immediate", disable_tqdm=False),
        train_dataset=tiny_dataset(16), processing_class=tiny_tokenizer(), step_scorer=HashScorer(),
        verifier=DigitVerifier(), callbacks=[MetricsFile(folder), Kill(kill_after)])
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(folder + "/policy")

whole, cut = sys.argv[1:3]
if sys.argv[3] == "resume":
    train(cut, resume=True)
else:
    train(whole)
    train(cut, kill_after=5)
"""


def run(folder: Path, what: str) -> int:
    arguments = [sys.executable, "-c", SCRIPT, str(folder / "whole"), str(folder / "cut"), what]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(arguments, cwd=root, capture_output=True, timeout=300).returncode


def numbers(folder: Path) -> list[dict]:
    """Every log but what a clock says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "step_time", "train_", "_per_second")
    return [{k: v for k, v in row.items() if not any(t in k for t in timed)} for row in rows]


def test_sigkill_and_resume_is_the_uninterrupted_run(tmp_path):
    assert run(tmp_path, "start") == -signal.SIGKILL
    assert len(numbers(tmp_path / "cut")) == 4  # killed inside update 5, before its log
    assert run(tmp_path, "resume") == 0
    whole, cut = numbers(tmp_path / "whole"), numbers(tmp_path / "cut")
    assert [row["step"] for row in cut] == [1, 2, 3, 4, 5, 6, 6]
    assert cut == whole
    weights = [load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "cut")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_without_a_checkpoint_is_refused(tmp_path):
    from rlhf_prm.runs.checkpoints import checkpoint_to_resume
    from tests.tiny import tiny_config

    with pytest.raises(ValueError, match="no checkpoint in"):
        checkpoint_to_resume(tiny_config(tmp_path, resume_from_checkpoint="true"))
    assert checkpoint_to_resume(tiny_config(tmp_path)) is None
