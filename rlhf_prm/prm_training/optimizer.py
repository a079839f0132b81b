"""AdamW for models trained beside a policy: float32 copies of low-precision weights, warm-up, gradient clipping."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MasterAdamW:
    """AdamW without weight decay on float32 copies of the weights (on the weights themselves if they are float32).

    Weights may be cast to a lower precision later, as DeepSpeed does beside the policy: then they have copies too.

    Args:
        weights: the weights to train.
        warmup: updates until the learning rate is at its full value; then it is constant.
        max_grad_norm: gradients are scaled down to this norm.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], learning_rate: float, *, warmup: int = 0, max_grad_norm: float = 1.0
    ) -> None:
        self.weights = list(weights)
        self.masters = [weight if weight.dtype == torch.float32 else _master(weight) for weight in self.weights]
        self.adam = torch.optim.AdamW(self.masters, lr=learning_rate, weight_decay=0.0)
        self.learning_rate, self.warmup, self.max_grad_norm = learning_rate, warmup, max_grad_norm
        self.done = 0

    def gradients(self) -> list[Tensor]:
        """The gradients of all weights, zeros for weights without one; they may be changed in place."""
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.weights]

    @torch.no_grad()
    def __call__(self) -> float:
        """One update with the present gradients, which are then cleared; returns their norm before clipping."""
        self._copy_what_was_cast()
        self.done += 1
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate * min(1.0, self.done / max(1, self.warmup))
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                master.grad = weight.grad.float()
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.max_grad_norm)
        self.adam.step()
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                weight.copy_(master)
            weight.grad = master.grad = None
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """A copy on the CPU: weights in float32, moments, updates done."""
        self._copy_what_was_cast()
        kept = [master.detach().to("cpu", copy=True) for master in self.masters]
        return {"weights": kept, "adam": _on_cpu(self.adam.state_dict()), "done": self.done}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore that state, including the weights.

        Raises:
            ValueError: it belongs to another model.
        """
        self._copy_what_was_cast()
        got, wanted = [tuple(w.shape) for w in state["weights"]], [tuple(w.shape) for w in self.masters]
        if got != wanted:
            raise ValueError(f"a saved scorer: got {len(got)} weights of other shapes, expected {len(wanted)} as here")
        for weight, master, kept in zip(self.weights, self.masters, state["weights"], strict=True):
            master.copy_(kept)
            weight.copy_(kept)
        self.adam.load_state_dict(state["adam"])
        self.done = state["done"]

    def _copy_what_was_cast(self) -> None:
        """Give weights that are no longer float32 a copy that is, with their moments."""
        for i, (weight, master) in enumerate(zip(self.weights, self.masters, strict=True)):
            if master is weight and weight.dtype != torch.float32:
                self.masters[i] = self.adam.param_groups[0]["params"][i] = copied = _master(weight)
                if weight in self.adam.state:
                    self.adam.state[copied] = self.adam.state.pop(weight)


def _master(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().float().clone())


def _on_cpu(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {name: _on_cpu(value) for name, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state
