"""Which of several PRMs to trust where there are no labels: ranking by mutual consistency (PoEM, arXiv 2408.13738).

Agreement is not truth. Two scorers that answer the same whatever they read agree completely, so the method ranks them
first: :func:`agreement_warnings` says where that may have happened.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ConsistencyRanking:
    """``weights[i]`` ≥ 0: how far model i agrees with the kept references; ``kept[i]``: it is one of them."""

    weights: list[float]
    kept: list[bool]

    @property
    def order(self) -> list[int]:
        """Indices of the models, the most trusted first."""
        return sorted(range(len(self.weights)), key=lambda index: -self.weights[index])


def agreement(predictions: Sequence[Sequence[int]]) -> Float[np.ndarray, "M M"]:
    """S_ij = share of items on which models i and j predict the same, from M lists of predictions.

    Raises:
        ValueError: lists of different lengths, or empty ones.
    """
    lengths = {len(row) for row in predictions}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"got predictions on {sorted(lengths)} items, expected the same items (≥ 1) for every model")
    table = np.array(predictions)
    return (table[:, None, :] == table[None, :, :]).mean(-1)


MOSTLY_THE_SAME = 0.9  # share of one answer from which on agreement says little


def agreement_warnings(names: Sequence[str], predictions: Sequence[Sequence[int]]) -> list[str]:
    """A sentence for each model that predicts the same first error (or none) for nine in ten items or more.

    Args:
        predictions: of each model, 0-based first wrong steps, −1 = none.
    """
    warnings = []
    for name, row in zip(names, predictions, strict=True):
        ((answer, count),) = Counter(row).most_common(1)
        if count >= MOSTLY_THE_SAME * len(row):
            what = "finds no wrong step" if answer < 0 else f"calls step {answer + 1} the first wrong one"
            warnings.append(
                f"{name} {what} in {count / len(row):.0%} of the solutions: such scorers agree with each other "
                "whatever the solutions are, so its rank says nothing about its skill; look at its audit"
            )
    return warnings


def consistency_weights(
    similarity: Float[np.ndarray, "M M"], references: Sequence[int], iterations: int = 100
) -> Float[np.ndarray, " M"]:
    """w ∝ S·w over the reference models until it stands, the model itself left out; every model gets a weight.

    Weights of the references have mean 1; that of another model is on the same scale.
    """
    off_diagonal = similarity - np.diag(np.diag(similarity))
    columns = list(references)
    weights = np.ones(len(columns))
    for _ in range(iterations):
        new = off_diagonal[np.ix_(columns, columns)] @ weights
        total = new.mean()
        if total == 0:
            return np.zeros(len(similarity))
        weights, previous = new / total, weights
        if np.allclose(weights, previous, atol=1e-12):
            break
    all_weights = np.zeros(len(similarity))
    for model in range(len(similarity)):
        others = [position for position, reference in enumerate(columns) if reference != model]
        all_weights[model] = (off_diagonal[model, columns] @ weights) / max(weights[others].sum(), 1e-12)
    return all_weights


def mean_consistency(similarity: Float[np.ndarray, "M M"], references: Sequence[int]) -> float:
    """Mean agreement of the pairs among the references."""
    block = similarity[np.ix_(list(references), list(references))]
    size = len(references)
    return float((block.sum() - np.trace(block)) / (size * (size - 1)))


def poem_ranking(similarity: Float[np.ndarray, "M M"]) -> ConsistencyRanking:
    """Weigh models by agreement, and drop the weakest reference while that raises the references' mean consistency.

    At least two references stay. With two models there is nothing to tell them apart: both get the same weight.

    Raises:
        ValueError: fewer than two models.
    """
    if len(similarity) < 2:
        raise ValueError(f"agreement ranks several PRMs against each other: got {len(similarity)}, expected at least 2")
    references = list(range(len(similarity)))
    weights = consistency_weights(similarity, references)
    while len(references) > 2:
        weakest = min(references, key=lambda model: weights[model])
        fewer = [model for model in references if model != weakest]
        if mean_consistency(similarity, fewer) <= mean_consistency(similarity, references):
            break
        references = fewer
        weights = consistency_weights(similarity, references)
    return ConsistencyRanking(weights.tolist(), [model in references for model in range(len(similarity))])
