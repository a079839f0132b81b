"""The tutorials run from the first cell to the last, and print what their comments talk about."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRINTED = {
    "what_a_prm_knows": ("blind guess", "exact labels: {'error_accuracy': 1.0", "right answers:"),
    "one_rl_run": ("by hand:", "tokens per step:", "accuracy: "),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PRINTED)
def test_a_tutorial_runs(name, tmp_path):
    script = ROOT / "docs" / "tutorials" / f"{name}.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for words in PRINTED[name]:
        assert words in done.stdout
