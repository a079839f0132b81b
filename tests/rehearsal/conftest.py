"""The checkpoints and data that the rehearsed configs are pointed at, made once."""

from pathlib import Path

import pytest

from tests.rehearsal.published import (
    gsm8k_columns,
    math_columns,
    policy_checkpoint,
    prm_checkpoint,
    qwen3_checkpoint,
    step_labels,
)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> dict[str, Path]:
    """Placeholder of the table → folder or file."""
    folder = tmp_path_factory.mktemp("published")
    return {
        "policy": policy_checkpoint(folder / "policy", tied=False),
        "tied_policy": policy_checkpoint(folder / "tied_policy", tied=True),
        "qwen3": qwen3_checkpoint(folder / "qwen3"),
        "prm": prm_checkpoint(folder / "prm"),
        "math": math_columns(folder / "math"),
        "gsm8k": gsm8k_columns(folder / "gsm8k"),
        "labels": step_labels(folder / "consensus.jsonl", "consensus"),
        "soft_labels": step_labels(folder / "monte_carlo.jsonl", "monte_carlo"),
    }
