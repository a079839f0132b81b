"""A configured method: it is looked up, checked early, scheduled, scaled towards outcome-only, and keeps its memory."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reward import METHODS, TOKEN_METHODS, StepRollouts, resolve, scheduled, step_to_token
from reward.schedules import is_schedule

Memory = dict[str, Tensor]


class StepAdvantages:
    """Turns ``StepRollouts`` into step advantages by one configured method.

    A method may carry numbers from batch to batch, explicitly: it has an attribute ``initial_memory``, a function of no
    arguments that returns named float32 tensors, and is called as ``method(rollouts, memory, **keywords)`` to return
    ``(advantages, new_memory)``, with the same names and shapes. It is given a copy. All ranks see the same
    rollouts, so their memories are equal.

    Args:
        method: a name in ``reward.METHODS`` or ``reward.TOKEN_METHODS``, or a dotted path.
        keywords: the method's keywords; numbers may be schedules (``reward.scheduled``).

    A method that measures how far scores agree with outcomes has an attribute ``measures_trust``.

    Attributes:
        per_token: whether the method reads token scores and gives (B, T); such methods have an attribute ``per_token``.
        memory: what the method remembers of the training batches so far; empty for a method without a memory.

    Raises:
        ValueError: an unknown method, a keyword it does not take, a malformed schedule, or a user's method that
            does not return finite (B, K) (``per_token``: (B, T)), or a memory unlike its initial one.
    """

    def __init__(self, method: str, keywords: dict[str, Any]) -> None:
        self.name, self.keywords = method, keywords
        self.method = resolve(method, METHODS | TOKEN_METHODS, "method")
        self.per_token = getattr(self.method, "per_token", False)
        self.has_memory = hasattr(self.method, "initial_memory")
        self.memory: Memory = self._initial_memory() if self.has_memory else {}
        self._check_keywords()
        self._try()

    def __call__(
        self,
        rollouts: StepRollouts,
        update: int,
        process_scale: float = 1.0,
        *,
        remember: bool = True,
        credited: Bool[Tensor, "B K"] | None = None,
    ) -> Float[Tensor, "B N"]:
        """Advantages at optimizer update ``update``: (B, K), or (B, T) where ``per_token``.

        ``process_scale`` s in [0, 1] shrinks what the method adds to outcome-only:
        A = A_outcome + s·(A_method − A_outcome); with s = 1 the method is unchanged.
        ``credited``: the steps that the method may credit; the others have their outcome-only advantage. None = all.
        ``remember=False``: the method uses its memory but does not update it.
        """
        advantages, memory = self._called(rollouts, self.memory, update)
        if remember:
            self.memory = memory
        if process_scale == 1.0 and credited is None:
            return advantages
        scale = torch.full(rollouts.step_mask.shape, process_scale, device=advantages.device)
        if credited is not None:
            scale = scale * credited.to(scale.device)
        outcome_only = METHODS["outcome"](rollouts)
        if self.per_token:
            counts, width = rollouts.token_counts, advantages.shape[1]
            outcome_only, scale = (step_to_token(values, counts, width) for values in (outcome_only, scale))
        return outcome_only + scale * (advantages - outcome_only)

    def check_scorer(self, scorer: Any) -> None:
        """Whether the method can use this scorer.

        Raises:
            ValueError: the method reads token scores and the scorer has none, the method measures how far scores
                agree with outcomes and the scorer has been trained on those outcomes before it scores, or the scorer
                would be trained but does not score tokens.
        """
        if hasattr(scorer, "update") and not hasattr(scorer, "score_tokens"):
            raise ValueError(
                f"step_scorer: got {type(scorer).__name__} with update and without score_tokens, expected both or none "
                "of them: only scorers of tokens are trained along with the policy (a PRM is by prm_refresh)"
            )
        if self.per_token and not hasattr(scorer, "score_tokens"):
            raise ValueError(
                f"method {self.name!r} reads token scores: got step_scorer {type(scorer).__name__}, expected one with "
                "score_tokens (an implicit PRM, a teacher, the policy's own reference)"
            )
        trusts = self.reads_scores and getattr(self.method, "measures_trust", False)
        if trusts and getattr(scorer, "learns", None) == "before":
            raise ValueError(
                f"method {self.name!r} trusts scores as far as they agree with the outcomes: got a "
                f"{type(scorer).__name__} with order 'before', which is trained on these outcomes before it scores, so "
                "it would always agree; expected order 'after' (--prm_kwargs '{\"order\": \"after\"}')"
            )

    @property
    def reads_scores(self) -> bool:
        """Whether step scores reach its advantages: not "outcome", nor a method whose ``process_weight`` is 0."""
        parameter = inspect.signature(self.method).parameters.get("process_weight")
        weight = self.keywords.get("process_weight", None if parameter is None else parameter.default)
        return self.name != "outcome" and weight != 0

    def state_dict(self) -> Memory:
        """A copy of the memory, on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.memory.items()}

    def load_state_dict(self, memory: Memory) -> None:
        """Restore this memory.

        Raises:
            ValueError: it is not the memory of this method.
        """
        self._check_memory(memory, "the saved memory")
        self.memory = {name: value.clone() for name, value in memory.items()}

    def _called(self, rollouts: StepRollouts, memory: Memory, update: int) -> tuple[Tensor, Memory]:
        """The method's advantages, and its new memory (empty where it has none)."""
        keywords = self._keywords_at(update)
        if not self.has_memory:
            return self.method(rollouts, **keywords), {}
        device = rollouts.step_scores.device
        answer = self.method(
            rollouts, {name: value.to(device, copy=True) for name, value in memory.items()}, **keywords
        )
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ValueError(
                f"method {self.name!r}: got {type(answer).__name__}, expected (advantages, memory), since it has "
                "`initial_memory`"
            )
        self._check_memory(answer[1], "the memory it returned")
        return answer[0], {name: value.detach() for name, value in answer[1].items()}

    def _initial_memory(self) -> Memory:
        memory = self.method.initial_memory()
        named = isinstance(memory, dict) and all(isinstance(name, str) for name in memory)
        if not named or not all(isinstance(v, Tensor) and v.dtype == torch.float32 for v in memory.values()):
            raise ValueError(
                f"method {self.name!r}: got initial_memory() = {memory!r}, expected a dict of names and float32 tensors"
            )
        return memory

    def _check_memory(self, memory: Any, what: str) -> None:
        got, wanted = _described(memory), _described(self.memory)
        if got != wanted:
            raise ValueError(f"method {self.name!r}: {what} is {got}, expected {wanted} as in initial_memory()")

    def _keywords_at(self, update: int) -> dict[str, Any]:
        return {
            name: scheduled(value, update) if is_schedule(value) else value for name, value in self.keywords.items()
        }

    def _check_keywords(self) -> None:
        parameters = list(inspect.signature(self.method).parameters.values())[1 + self.has_memory :]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        accepted = [p.name for p in parameters]
        for name in self.keywords:
            if name not in accepted:
                takes = ", ".join(accepted) or "none"
                raise ValueError(f"method_kwargs: method {self.name!r} has no keyword {name!r}; its keywords: {takes}")

    def _try(self) -> None:
        """Call the method on four made-up rollouts, so that a mistake shows before the first generation.

        The memory stays as it is.
        """
        rollouts = StepRollouts(
            step_scores=torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.4, 0.0], [0.6, 0.5]]),
            step_mask=torch.tensor([[True, True], [True, True], [True, False], [True, True]]),
            step_lengths=torch.tensor([[3, 2], [4, 1], [2, 0], [1, 1]]),
            outcome_rewards=torch.tensor([1.0, 0.0, 0.0, float("nan")]),
            num_generations=2,
            token_scores=torch.linspace(-0.5, 0.5, 20).reshape(4, 5) if self.per_token else None,
            state_keys=torch.tensor([[0, 1], [0, -1], [2, -1], [2, 3]]),
        )
        try:
            advantages, _ = self._called(rollouts, self.memory, update=0)
        except (TypeError, ValueError) as error:
            raise ValueError(f"method {self.name!r} with {self.keywords}: {error}") from error
        shape = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        wanted = (4, 5) if self.per_token else (4, 2)
        if shape != wanted or not advantages.isfinite().all():
            raise ValueError(
                f"method {self.name!r}: got {shape} for 4 rollouts of 2 steps and 5 tokens, expected finite {wanted}"
            )


def _described(memory: Any) -> Any:
    """Names, types and shapes of a memory, to compare and to show."""
    if not isinstance(memory, Mapping):
        return type(memory).__name__
    return {
        name: f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        for name, value in sorted(memory.items())
    }
