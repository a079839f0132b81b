"""Shared fixtures. Everything runs offline, on tiny models made in the tests."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

DATA_VARIABLE = "RLHF_PRM_DATA"
SHARED = Path(os.environ.get(DATA_VARIABLE, Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of whole public data sets, which a clone does not have; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs whole data sets that are not shipped (GSM8K outputs, MATH-500, ProcessBench, MR-Ben, PRMBench, "
            f"OpenR samples): a folder of them, named by {DATA_VARIABLE}"
        )
    return SHARED
