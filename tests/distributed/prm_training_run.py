"""Train a PRM for three updates, the first with the head alone; alone or as one of several ranks."""

from pathlib import Path

import torch

from rlhf_prm.prm_training.config import PRMConfig
from rlhf_prm.prm_training.trainer import PRMTrainer
from tests.prm_training.conftest import stepwise_rows


def run(language_model: str, folder: Path, batch_size: int) -> dict:
    args = PRMConfig(
        output_dir=str(folder / "prm"), max_steps=3, per_device_train_batch_size=batch_size, learning_rate=1e-2,
        per_device_eval_batch_size=4, report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, seed=0,
        lr_scheduler_type="constant", head_updates=1, logging_steps=1.0,
        max_grad_norm=0.0,
    )  # fmt: skip
    torch.manual_seed(0)  # the new head
    trainer = PRMTrainer(language_model, args, stepwise_rows(24), stepwise_rows(22, seed=1))
    trainer.train()
    trainer.save_model()
    metrics = trainer.evaluate()
    kept = ("eval_f1", "eval_error_accuracy", "eval_correct_accuracy", "eval_auroc", "eval_ece")
    return {
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        "metrics": {name: metrics[name] for name in kept},
        "world_size": trainer.accelerator.num_processes,
        "type": str(trainer.accelerator.distributed_type),
        "rank": trainer.accelerator.process_index,
    }


def results_of(folder: Path, parts: list[str]) -> dict:
    """``parts``: the language model's folder."""
    return run(parts[0], folder, batch_size=4)
