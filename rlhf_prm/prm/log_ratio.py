"""Token scores that are log-ratios of a frozen model (a teacher, or the policy's reference) and the policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlhf_prm.prm.token_model import Sequences


@runtime_checkable
class TellsLogProbs(Protocol):
    """A ``TokenModel``, or one behind an endpoint."""

    def log_probs(self, sequences: Sequences) -> list[Tensor]: ...


@dataclass
class RatioStats:
    """Running totals of a log-ratio scorer on this rank."""

    calls: int = 0
    forwards: int = 0
    tokens: int = 0
    unscored_tokens: int = 0  # past the model's context: NaN


class LogRatioScorer:
    """A token scorer: sign · (log p_model(y_t) − log π(y_t)) on the policy's own tokens.

    Args:
        model: the frozen model. It must have the policy's tokenizer (``check_tokenizers``) and the temperature that
            the policy is sampled at.
        sign: +1 for a teacher (a positive score: the token is more likely under the teacher), −1 for the policy's
            reference (a positive score: the token has become more likely).
    """

    needs_log_probs = True

    def __init__(self, model: TellsLogProbs, sign: int = 1) -> None:
        if sign not in (1, -1):
            raise ValueError(f"sign: got {sign}, expected 1 (a teacher) or -1 (the policy's start)")
        self.model, self.sign, self.stats = model, sign, RatioStats()

    def score_tokens(self, rollouts: Sequence[Any]) -> list[Tensor]:
        """See ``rlhf_prm.rl.scorers.TokenScorer``."""
        found = self.model.log_probs([(one.prompt_ids, one.completion_ids) for one in rollouts])
        scores = [self.sign * (row - one.log_probs) for row, one in zip(found, rollouts, strict=True)]
        self.stats.calls += 1
        self.stats.forwards = getattr(self.model, "forwards", 0)
        self.stats.tokens += sum(map(len, scores))
        self.stats.unscored_tokens += sum(int(row.isnan().sum()) for row in scores)
        return scores

    def attach(self, trainer: Any) -> None:
        """Use the trainer's temperature.

        Raises:
            ValueError: the model is behind an endpoint, which gives log-probabilities at temperature 1 only.
        """
        self.at_temperature(trainer.temperature)

    def at_temperature(self, temperature: float) -> None:
        """See ``attach``."""
        if hasattr(self.model, "reader"):
            self.model.reader.temperature = temperature
        elif temperature != 1.0:
            raise ValueError(
                f"temperature: got {temperature} beside a teacher behind an endpoint, which gives log-probabilities at "
                "temperature 1; expected 1.0, or a teacher in process"
            )


def distance(scores: Sequence[Tensor]) -> dict[str, float]:
    """How far apart the two models are on these rollouts.

    ``kl`` is the mean of −score per token (for a teacher: the estimate of KL(π‖π_T) in nats per token), ``beyond_5``
    the share of tokens whose scores are past ±5, ``worst`` the lowest score.
    """
    flat = torch.cat([row[~row.isnan()] for row in scores]).double()
    if not len(flat):
        return {"kl": float("nan"), "beyond_5": float("nan"), "worst": float("nan")}
    return {
        "kl": -flat.mean().item(),
        "beyond_5": (flat.abs() > 5).double().mean().item(),
        "worst": flat.min().item(),
    }
