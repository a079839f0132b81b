"""A PRM server that goes away for good: the run stops, what was done is saved and can be resumed."""

import pytest
import torch

from rlhf_prm.prm.server import PRMServerError
from rlhf_prm.rl.grpo import ProcessGRPOTrainer
from rlhf_prm.runs.checkpoints import checkpoint_to_resume
from rlhf_prm.runs.train import checkpoint_when_server_is_lost
from tests.tiny import DigitVerifier, HashScorer, tiny_config, tiny_dataset, tiny_policy, tiny_tokenizer


class Served(HashScorer):
    """Answers ``calls`` times and is gone after that."""

    def __init__(self, calls: float) -> None:
        self.left = calls

    def score(self, problems, steps):
        if self.left <= 0:
            raise PRMServerError("no answer from the PRM server; start it with: vllm serve …")
        self.left -= 1
        return super().score(problems, steps)


def trained(folder, calls: float, resume: str | None = None):
    config = tiny_config(folder, max_steps=4, save_strategy="no", resume_from_checkpoint=resume)
    trainer = ProcessGRPOTrainer(
        model=tiny_policy(),
        args=config,
        train_dataset=tiny_dataset(16),
        processing_class=tiny_tokenizer(),
        step_scorer=Served(calls),
        verifier=DigitVerifier(),
    )
    with checkpoint_when_server_is_lost(trainer):
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(config))
    return trainer


def test_stops_with_the_checkpoint_saved_and_goes_on_from_it(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)vllm serve.*update 2 is saved; resume with --resume_from_checkpoint"):
        trained(tmp_path, calls=2)
    assert (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    resumed = trained(tmp_path, calls=2, resume="true")
    assert resumed.state.global_step == 4
    whole = trained(tmp_path / "whole", calls=4)
    changed = [n for n, p in resumed.model.named_parameters() if not torch.equal(p, tiny_policy().state_dict()[n])]
    assert changed and whole.state.global_step == 4


def test_lost_before_the_first_update(tmp_path):
    with pytest.raises(SystemExit, match="no update was done"):
        trained(tmp_path, calls=0)
    assert not list(tmp_path.glob("checkpoint-*"))
