"""The toy PRM: the policy's body with a new head, trained on labelled solutions."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What tells a process that it is one of several; torchrun's and accelerate's.
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_PREFIXES = ("ACCELERATE_", "TORCHELASTIC_", "FSDP_")


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

    One of several ranks trains in a process of its own: inside its own process the Trainer would wait for the other
    ranks, which wait for the stage to be finished.

    Args:
        policy_path: the language model it starts from.
        rows: stepwise-supervision rows.
    """
    arguments = {
        "policy_path": str(policy_path),
        "rows": list(rows),
        "folder": str(folder),
        "seed": seed,
        "updates": updates,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return _train(**arguments)
    alone = {k: v for k, v in os.environ.items() if k not in LAUNCHER and not k.startswith(LAUNCHER_PREFIXES)}
    command = [sys.executable, "-m", "rlhf_prm.toyworld.reward_model"]
    subprocess.run(command, input=json.dumps(arguments), text=True, env=alone, check=True)


def _train(
    policy_path: str,
    rows: list[dict[str, Any]],
    folder: str,
    seed: int,
    updates: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    import torch
    from transformers import AutoTokenizer, set_seed

    from rlhf_prm.stepwise import to_dataset
    from rlhf_prm.trainers.prm import PRMTrainer
    from rlhf_prm.trainers.prm_config import PRMConfig

    arguments = PRMConfig(
        output_dir=folder,
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
        trainer = PRMTrainer(policy_path, arguments, to_dataset(rows), processing_class=tokenizer)
        trainer.train()
        trainer.save_model(folder)


if __name__ == "__main__":
    _train(**json.load(sys.stdin))
