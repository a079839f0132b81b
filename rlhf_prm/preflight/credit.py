"""Positional credit: how much better a step scores than the same step of the group's other rollouts."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from reward.credit import positional_advantages
from rlhf_prm.evaluation.samples import SampledProblem


def positional_credit(step_scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """c_k = p_k − mean of p at the same k over the group's other rollouts; 0 where no other rollout has a step k.

    Scores that rise or fall with the position in the same way in every rollout leave no credit.
    """
    if not step_scores:
        return []
    rows = [torch.tensor(row, dtype=torch.float64) for row in step_scores]
    mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    credit = positional_advantages(pad_sequence(rows, batch_first=True), mask, len(rows))
    return [row[real].tolist() for row, real in zip(credit, mask, strict=True)]


def summed_credit(sample: SampledProblem) -> list[float]:
    """Σ_k c_k of each rollout: its total dense credit."""
    return [sum(row) for row in positional_credit(sample.step_scores)]
