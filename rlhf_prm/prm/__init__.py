"""Process reward models: how each family is read, and how they are scored fast beside a policy."""

from rlhf_prm.prm.calibration import Calibration, fitted_calibration
from rlhf_prm.prm.families import FAMILIES, Family
from rlhf_prm.prm.load import load_prm
from rlhf_prm.prm.scorer import PRMScorer, ScorerStats, StepScorer
from rlhf_prm.prm.server import PRMServerError, ServerScorer

__all__ = [
    "FAMILIES",
    "Calibration",
    "Family",
    "PRMScorer",
    "PRMServerError",
    "ScorerStats",
    "ServerScorer",
    "StepScorer",
    "fitted_calibration",
    "load_prm",
]
