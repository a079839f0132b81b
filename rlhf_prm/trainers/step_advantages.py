"""A configured method: resolved, checked before any long work, scheduled, and scaled against outcome-only."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reward import METHODS, StepRollouts, resolve, scheduled


class StepAdvantages:
    """Turns ``StepRollouts`` into step advantages by one configured method.

    Args:
        method: a name in ``reward.METHODS`` or a dotted path.
        keywords: the method's keywords; numbers may be schedules (``reward.scheduled``).

    Raises:
        ValueError: an unknown method, a keyword it does not take, a malformed schedule, or a method of one's own that
            does not return finite (B, K).
    """

    def __init__(self, method: str, keywords: dict[str, Any]) -> None:
        self.name, self.keywords = method, keywords
        self.method = resolve(method, METHODS, "method")
        self._check_keywords()
        self._try()

    def __call__(self, rollouts: StepRollouts, update: int, process_scale: float = 1.0) -> Float[Tensor, "B K"]:
        """(B, K) advantages at optimizer update ``update``.

        ``process_scale`` s in [0, 1] shrinks what the method adds to outcome-only:
        A = A_outcome + s·(A_method − A_outcome); 1 is the method untouched.
        """
        advantages = self.method(rollouts, **self._keywords_at(update))
        if process_scale == 1.0:
            return advantages
        outcome_only = METHODS["outcome"](rollouts)
        return outcome_only + process_scale * (advantages - outcome_only)

    def _keywords_at(self, update: int) -> dict[str, Any]:
        return {
            name: scheduled(value, update) if isinstance(value, Mapping) else value
            for name, value in self.keywords.items()
        }

    def _check_keywords(self) -> None:
        parameters = list(inspect.signature(self.method).parameters.values())[1:]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        accepted = [p.name for p in parameters]
        for name in self.keywords:
            if name not in accepted:
                takes = ", ".join(accepted) or "none"
                raise ValueError(f"method_kwargs: method {self.name!r} has no keyword {name!r}; its keywords: {takes}")

    def _try(self) -> None:
        """One call on four made-up rollouts: a mistake shows now and not after the first generation."""
        rollouts = StepRollouts(
            step_scores=torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.4, 0.0], [0.6, 0.5]]),
            step_mask=torch.tensor([[True, True], [True, True], [True, False], [True, True]]),
            step_lengths=torch.tensor([[3, 2], [4, 1], [2, 0], [1, 1]]),
            outcome_rewards=torch.tensor([1.0, 0.0, 0.0, float("nan")]),
            num_generations=2,
        )
        try:
            advantages = self.method(rollouts, **self._keywords_at(0))
        except (TypeError, ValueError) as error:
            raise ValueError(f"method {self.name!r} with {self.keywords}: {error}") from error
        shape = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        if shape != (4, 2) or not advantages.isfinite().all():
            raise ValueError(f"method {self.name!r}: got {shape} for 4 rollouts of 2 steps, expected finite (4, 2)")
