"""StepRollouts: the one data type the maths of this package works on."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StepRollouts:
    """A batch of scored rollouts, the G rollouts of one prompt adjacent.

    Letters: B = rollouts, K = most steps of any rollout, G = ``num_generations``.

    Padded cells (``step_mask`` False) may hold anything, NaN included: they never matter.

    Args:
        step_scores: P(step k is correct | prefix) in [0, 1], from a process reward model.
        step_mask: True = a real step; real steps come first in every row, and there is at least one.
        step_lengths: tokens in each step, its separator included; they sum to the completion's tokens.
        outcome_rewards: the verifier's reward, one per rollout; NaN = unscorable (no or bad gold answer).
        num_generations: G; divides B.

    Raises:
        ValueError: a field breaks one of these rules; the message says what came and what was expected.
    """

    step_scores: Float[Tensor, "B K"]
    step_mask: Bool[Tensor, "B K"]
    step_lengths: Int[Tensor, "B K"]
    outcome_rewards: Float[Tensor, " B"]
    num_generations: int

    def __post_init__(self) -> None:
        shape = tuple(self.step_scores.shape)
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"step_scores: got shape {shape}, expected (B, K) with K ≥ 1")
        for name, wanted in (("step_mask", shape), ("step_lengths", shape), ("outcome_rewards", shape[:1])):
            got = tuple(getattr(self, name).shape)
            if got != wanted:
                raise ValueError(f"{name}: got shape {got}, expected {wanted} to match step_scores {shape}")
        if self.step_mask.dtype != torch.bool:
            raise ValueError(f"step_mask: got dtype {self.step_mask.dtype}, expected torch.bool (True = real step)")
        if self.step_lengths.is_floating_point():
            raise ValueError(f"step_lengths: got dtype {self.step_lengths.dtype}, expected integers (tokens per step)")
        if self.num_generations < 1 or shape[0] % self.num_generations:
            raise ValueError(
                f"num_generations: got {self.num_generations} for {shape[0]} rollouts, expected a divisor of the batch"
            )
