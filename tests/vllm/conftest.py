"""The checkpoints and rollouts of the PRM tests, for the tests that need vLLM."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "prm"))
