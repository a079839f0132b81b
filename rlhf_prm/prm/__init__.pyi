"""The public names and where they are."""

from .calibration import Calibration as Calibration, fitted_calibration as fitted_calibration
from .families import FAMILIES as FAMILIES, Family as Family
from .load import load_prm as load_prm
from .protocol import StepScorer as StepScorer
from .scorer import PRMScorer as PRMScorer, ScorerStats as ScorerStats
from .server import PRMServerError as PRMServerError, ServerScorer as ServerScorer
