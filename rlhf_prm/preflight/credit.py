"""Positional credit: how much better a step scores than the same step of the group's other rollouts."""

from collections.abc import Sequence

from rlhf_prm.evaluation.samples import SampledProblem


def positional_credit(step_scores: Sequence[Sequence[float]]) -> list[list[float]]:
    """c_k = p_k − mean of p at the same k over the group's other rollouts; 0 where no other rollout has a step k.

    Scores that rise or fall with the position in the same way in every rollout leave no credit.
    """
    credits = [[0.0] * len(row) for row in step_scores]
    for k in range(max(map(len, step_scores), default=0)):
        rows = [i for i, row in enumerate(step_scores) if len(row) > k]
        if len(rows) < 2:
            continue
        # Measured from one of them: where all scores are equal, rounding leaves no credit.
        shifted = [step_scores[i][k] - step_scores[rows[0]][k] for i in rows]
        total = sum(shifted)
        for i, own in zip(rows, shifted, strict=True):
            credits[i][k] = own - (total - own) / (len(rows) - 1)
    return credits


def summed_credit(sample: SampledProblem) -> list[float]:
    """Σ_k c_k of each rollout: what a dense update adds to it in all."""
    return [sum(row) for row in positional_credit(sample.step_scores)]
