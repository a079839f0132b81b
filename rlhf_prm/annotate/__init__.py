"""Builds step labels: sampling, Monte Carlo estimation, LLM-as-a-judge, consensus filtering."""

from rlhf_prm.annotate.consensus import ConsensusReport, consensus
from rlhf_prm.annotate.judge import JudgeSettings, judge
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo
from rlhf_prm.generation import Generator
from rlhf_prm.generation.requests import GenerationError
from rlhf_prm.generation.tasks import RejectedRow, Rejection
from rlhf_prm.generation.templates import PromptTemplate

__all__ = [
    "ConsensusReport",
    "GenerationError",
    "Generator",
    "JudgeSettings",
    "MonteCarloSettings",
    "PromptTemplate",
    "RejectedRow",
    "Rejection",
    "consensus",
    "judge",
    "monte_carlo",
]
