"""Building step labels: sampling, Monte-Carlo estimation, LLM-as-a-judge, consensus filtering."""

from rlhf_prm.annotate.consensus import ConsensusReport, consensus
from rlhf_prm.annotate.generators import Generator
from rlhf_prm.annotate.judge import JudgeSettings, judge
from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo
from rlhf_prm.annotate.tasks import GenerationError, RejectedRow, Rejection
from rlhf_prm.annotate.templates import PromptTemplate

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
