"""The tiny random PRM and policy of the evaluation tests."""

from tests.evaluation.conftest import policy_folder, prm_folder

__all__ = ["policy_folder", "prm_folder"]
