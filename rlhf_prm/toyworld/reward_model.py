"""The toy PRM: the policy's body with a new head, trained on labelled solutions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, set_seed

from rlhf_prm.stepwise import to_dataset
from rlhf_prm.trainers.prm import PRMTrainer
from rlhf_prm.trainers.prm_config import PRMConfig


def train_reward_model(
    policy_path: Path,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    *,
    seed: int,
    updates: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Writes a PRM that ``load_prm`` loads into ``folder``.

    Args:
        policy_path: the language model it starts from.
        rows: stepwise-supervision rows.
    """
    arguments = PRMConfig(
        output_dir=str(folder),
        max_steps=updates,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=updates // 20,
        seed=seed,
        loss="ce",
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        use_cpu=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(policy_path)
    with torch.random.fork_rng(devices=[]):
        set_seed(seed)  # the new head is drawn before the Trainer sets its seed
        trainer = PRMTrainer(str(policy_path), arguments, to_dataset(rows), processing_class=tokenizer)
        trainer.train()
        trainer.save_model(str(folder))
