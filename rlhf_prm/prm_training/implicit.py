"""An implicit PRM that is trained along with the policy, from verified outcomes alone (PRIME, arXiv 2502.01456).

With q_t = log π_φ(y_t) − log π_ref(y_t), β·Σ_t q_t is the log-odds that a rollout is right: φ is trained by
cross-entropy of σ(β·Σ_t q_t) on the verdict, and β·q_t is the reward of token t. No step labels are needed.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_prm.prm_training.implicit_models import ImplicitModels
from rlhf_prm.prm_training.optimizer import MasterAdamW
from rlhf_prm.prm_training.ranks import Ranks
from rlhf_prm.rl.dataset_checks import refuse_without_gold

ORDERS = ("before", "after")


@dataclass(frozen=True)
class ImplicitSettings:
    """How an implicit PRM scores and is trained; the defaults are the authors'.

    Args:
        beta: β of the log-odds.
        learning_rate, max_grad_norm: of AdamW without weight decay; the rate is constant.
        order: ``before``: train on a batch, then score it; ``after``: score it, then train on it.
        keep_from, keep_to: train on prompts whose share of right rollouts lies between these two.
    """

    beta: float = 0.05
    learning_rate: float = 1e-6
    max_grad_norm: float = 10.0
    order: str = "before"
    keep_from: float = 0.0
    keep_to: float = 1.0

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"implicit PRM {name}: got {getattr(self, name)}, expected more than 0")
        if self.order not in ORDERS:
            raise ValueError(f"implicit PRM order: got {self.order!r}, expected one of {', '.join(ORDERS)}")
        if not 0.0 <= self.keep_from <= self.keep_to <= 1.0:
            raise ValueError(
                f"implicit PRM: got keep_from {self.keep_from} and keep_to {self.keep_to}, expected 0 ≤ keep_from ≤ "
                "keep_to ≤ 1"
            )


@dataclass
class ImplicitStats:
    """Running totals on this rank."""

    calls: int = 0
    updates: int = 0
    forwards: int = 0
    tokens: int = 0
    unscored_tokens: int = 0


class ImplicitPRM:
    """A token scorer that is trained along with the policy (``rlhf_prm.rl.scorers``): token t scores β·q_t.

    It reads the policy's own ids, so its models must have the policy's tokenizer. All ranks hold the same weights:
    they train on the rollouts of all ranks together.
    """

    def __init__(self, models: ImplicitModels, settings: ImplicitSettings | None = None) -> None:
        self.models, self.settings = models, settings or ImplicitSettings()
        self.stats = ImplicitStats()
        self._optimizer: MasterAdamW | None = None
        self._reference: tuple[Any, list[Tensor]] | None = None  # of the newest batch, which needs it twice

    @property
    def learns(self) -> str:
        return self.settings.order

    def attach(self, trainer: Any) -> None:
        """Take the trainer's policy, if the adapter is to be added beside the policy's own.

        Raises:
            ValueError: the trainer has no verifier, whose verdicts φ is trained on, or no gold answer for it.
        """
        if trainer.scoring.verifier is None:
            raise ValueError(
                "implicit PRM: got no verifier=, expected one: it is trained on the verifier's verdicts (those of a "
                "reward function come after it has scored)"
            )
        refuse_without_gold(trainer.train_dataset, "implicit PRM")
        if hasattr(self.models, "attach"):
            self.models.attach(trainer)

    def score_tokens(self, rollouts: Sequence[Any]) -> list[Tensor]:
        """See ``rlhf_prm.rl.scorers.TokenScorer``."""
        reference = self._reference_log_probs(rollouts)
        found = self.models.log_probs(_sequences(rollouts))
        scores = [self.settings.beta * (own - ref) for own, ref in zip(found, reference, strict=True)]
        self.stats.calls += 1
        self.stats.forwards = self.models.forwards
        self.stats.tokens += sum(map(len, scores))
        self.stats.unscored_tokens += sum(int(row.isnan().sum()) for row in scores)
        return scores

    def update(self, rollouts: Sequence[Any]) -> dict[str, float]:
        """One update of φ on the judged rollouts of all ranks.

        Returns:
            ``implicit_loss`` and ``implicit_accuracy`` (share of rollouts on the right side of 1/2) before the update,
            the number ``implicit_rows``, ``implicit_grad_norm`` and ``implicit_seconds``; only ``implicit_rows`` = 0
            if there is nothing to train on.
        """
        start, ranks = time.perf_counter(), Ranks()
        mine, total = self._kept(rollouts, ranks)
        if not total:
            return {"implicit_rows": 0.0}
        reference = self._reference_log_probs(rollouts)
        with self.models.learning() as reader:
            step = self._stepper()
            sums = torch.zeros(2, device=self.models.device)
            for batch in self.models.batches(_sequences([rollouts[i] for i in mine])):
                chosen = [mine[i] for i in batch]
                rows = self.models.rows(reader, _sequences([rollouts[i] for i in chosen]))
                sums += self._backward(rows, [reference[i] for i in chosen], [rollouts[i] for i in chosen], total)
            ranks.summed([*step.gradients(), sums])
            norm = step()
        self.stats.updates += 1
        self.stats.forwards = self.models.forwards
        loss, right = sums.tolist()
        return {
            "implicit_loss": loss,
            "implicit_accuracy": right / total,
            "implicit_rows": float(total),
            "implicit_grad_norm": norm,
            "implicit_seconds": time.perf_counter() - start,
        }

    def _backward(self, rows: list[Tensor], reference: list[Tensor], rollouts: list[Any], total: int) -> Tensor:
        """Add the gradients of these rollouts; returns (their part of the loss, how many are on the right side)."""
        log_odds = torch.stack(
            [
                self.settings.beta * _of_the_policy(own.float() - ref[: len(own)].to(own.device), one).sum()
                for own, ref, one in zip(rows, reference, rollouts, strict=True)
            ]
        )
        verdicts = torch.tensor([one.verdict for one in rollouts], device=log_odds.device)
        loss = functional.binary_cross_entropy_with_logits(log_odds, verdicts, reduction="sum") / total
        loss.backward()
        right = ((log_odds > 0) == (verdicts == 1)).sum()
        return torch.stack([loss.detach(), right.to(loss.dtype)])

    def _kept(self, rollouts: Sequence[Any], ranks: Ranks) -> tuple[list[int], int]:
        """This rank's rollouts to train on, and how many there are on all ranks."""
        judged = [(tuple(one.prompt_ids), one.verdict) for one in rollouts]
        everywhere = [row for row in ranks.gathered(judged) if not math.isnan(row[1])]
        of_prompt: dict[tuple[int, ...], list[float]] = {}
        for prompt, verdict in everywhere:
            of_prompt.setdefault(prompt, []).append(verdict)
        low, high = self.settings.keep_from, self.settings.keep_to
        kept = {prompt for prompt, row in of_prompt.items() if low <= sum(row) / len(row) <= high}
        mine = [i for i, (prompt, verdict) in enumerate(judged) if prompt in kept and not math.isnan(verdict)]
        return mine, sum(prompt in kept for prompt, _ in everywhere)

    def _reference_log_probs(self, rollouts: Sequence[Any]) -> list[Tensor]:
        if self._reference is None or self._reference[0] is not rollouts:
            self._reference = rollouts, self.models.reference_log_probs(_sequences(rollouts))
        return self._reference[1]

    def _stepper(self) -> MasterAdamW:
        if self._optimizer is None:
            settings = self.settings
            self._optimizer = MasterAdamW(
                self.models.trained(), settings.learning_rate, max_grad_norm=settings.max_grad_norm
            )
        return self._optimizer

    def state_dict(self) -> dict[str, Any]:
        """φ's trained weights in float32, the optimizer's moments and the updates done."""
        with self.models.learning():
            return self._stepper().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore that state.

        Raises:
            ValueError: it belongs to another model.
        """
        with self.models.learning():
            self._stepper().load_state_dict(state)


def _of_the_policy(values: Tensor, rollout: Any) -> Tensor:
    """The values of the tokens that the policy itself wrote."""
    mask = getattr(rollout, "policy_mask", None)
    return values if mask is None else values[torch.tensor(mask[: len(values)], device=values.device).bool()]


def _sequences(rollouts: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
    return [(one.prompt_ids, one.completion_ids) for one in rollouts]
