"""Ranks several PRMs without labels, by their mutual consistency (PoEM, arXiv 2408.13738).

Agreement is not truth. Two scorers that always give the same answer agree completely, so the method would rank
them first: :func:`independence` finds such models, excludes them from the references and reports them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class ConsistencyRanking:
    """``weights[i]`` ≥ 0: how far model i agrees with the kept references; ``kept[i]``: it is one of them.

    ``steps`` are the references that were dropped to raise the others' consistency: (model, mean agreement of the
    references before, after).
    """

    weights: list[float]
    kept: list[bool]
    steps: list[tuple[int, float, float]] = field(default_factory=list)

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


MOSTLY_THE_SAME = 0.9  # a model that gives one answer at least this often agrees by chance
CLONES = 0.98  # two models with at least this share of equal answers count as one
FEWEST_FOR_PAIRS = 5  # with fewer models, a pair with shared errors cannot be distinguished from the others
EXCESS = 0.05  # of chance-corrected agreement, above which a pair is warned about
RESAMPLES = 200


@dataclass(frozen=True)
class Independence:
    """Which models may serve as references, and why the others may not.

    ``kept`` are indices of models; ``twin_of[i]`` is the kept model that the dropped model i repeats (None: it is
    dropped for another reason, or kept). ``warnings`` are sentences for people.
    """

    kept: list[int]
    twin_of: dict[int, int]
    warnings: list[str]


def independence(names: Sequence[str], predictions: Sequence[Sequence[int]]) -> Independence:
    """The models that the ranking may use as references: those whose agreement is informative.

    Agreement indicates skill only if models err independently of each other. Three violations are looked for:

    - a model with one answer for nine in ten items agrees with similar models on any items: it is dropped;
    - two models with the same answer to 98 % of the items are one model that counts twice: the later one is dropped;
    - two models that agree more than their agreement with the others explains (with five models or more; the lower end
      of a 95 % bootstrap interval is above .05): this only gives a warning, because either may still be good.

    Nothing is dropped if fewer than two models would be left.

    Args:
        predictions: of each model, 0-based first wrong steps, −1 = none.
    """
    similarity = agreement(predictions)
    warnings, constant = [], []
    for index, row in enumerate(predictions):
        ((answer, count),) = Counter(row).most_common(1)
        if count >= MOSTLY_THE_SAME * len(row):
            what = "finds no wrong step" if answer < 0 else f"calls step {answer + 1} the first wrong one"
            warnings.append(
                f"{names[index]} {what} in {count / len(row):.0%} of the solutions: such scorers agree with each other "
                "whatever the solutions are, so its rank does not show its skill; look at its audit"
            )
            constant.append(index)
    twin_of: dict[int, int] = {}
    for later in range(len(names)):
        for earlier in range(later):
            if not {earlier, later} & {*constant, *twin_of} and similarity[earlier, later] >= CLONES:
                twin_of[later] = earlier
                warnings.append(
                    f"{names[later]} gives the same answer as {names[earlier]} to {similarity[earlier, later]:.0%} of "
                    "the solutions: the two count as one model"
                )
    kept = [index for index in range(len(names)) if index not in constant and index not in twin_of]
    if len(kept) < 2:
        if constant or twin_of:
            warnings.append(
                f"fewer than two independent models would be left of {len(names)}, so none is dropped and the ranking "
                "is worth nothing: compare models that were trained on different labels"
            )
        return Independence(list(range(len(names))), {}, warnings)
    return Independence(kept, twin_of, [*warnings, *_shared_errors(names, predictions, kept)])


def _shared_errors(names: Sequence[str], predictions: Sequence[Sequence[int]], kept: Sequence[int]) -> list[str]:
    """A sentence for each pair of the kept models that agrees more than their agreement with the others explains."""
    if len(kept) < FEWEST_FOR_PAIRS:
        return []
    table = np.array([predictions[index] for index in kept])
    draws = np.random.default_rng(0).integers(0, table.shape[1], (RESAMPLES, table.shape[1]))
    excess = _excess_agreement(table)
    low = np.quantile([_excess_agreement(table[:, draw]) for draw in draws], 0.025, axis=0)
    return [
        f"{names[kept[i]]} and {names[kept[j]]} agree by {excess[i, j]:.2f} (chance-corrected) more than their "
        "agreement with the others explains: they do not err independently, so their weights may be too high"
        for i, j in combinations(range(len(kept)), 2)
        if low[i, j] > EXCESS
    ]


def _excess_agreement(table: Int[np.ndarray, "M N"]) -> Float[np.ndarray, "M M"]:
    """κ_ij less the median of κ_ik·κ_jl/κ_kl over the other models k ≠ l, with Cohen's κ.

    Of models that know the answer with probability r_i and else draw from their own answers, independently of each
    other, κ_ij is r_i·r_j, and the difference is 0.
    """
    kappa = _kappa(table)
    size = len(table)
    excess = np.zeros((size, size))
    for i, j in combinations(range(size), 2):
        others = [k for k in range(size) if k not in (i, j)]
        expected = [kappa[i, k] * kappa[j, m] / max(kappa[k, m], 0.05) for k in others for m in others if k != m]
        excess[i, j] = excess[j, i] = kappa[i, j] - np.median(expected)
    return excess


def _kappa(table: Int[np.ndarray, "M N"]) -> Float[np.ndarray, "M M"]:
    answers = np.unique(table)
    one_hot = (table[:, None, :] == answers[None, :, None]).astype(float)  # (M, answers, N)
    same = np.einsum("ian,jan->ij", one_hot, one_hot) / table.shape[1]
    shares = one_hot.mean(-1)
    chance = shares @ shares.T
    return (same - chance) / np.maximum(1 - chance, 1e-9)


def consistency_weights(
    similarity: Float[np.ndarray, "M M"], references: Sequence[int], iterations: int = 100
) -> Float[np.ndarray, " M"]:
    """Weights of all models from iterating w ∝ S·w over the references, each without itself, until it converges.

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


def poem_ranking(similarity: Float[np.ndarray, "M M"], references: Sequence[int] | None = None) -> ConsistencyRanking:
    """Weigh models by agreement, and drop the weakest reference while that raises the references' mean consistency.

    At least two references stay. Two models cannot be distinguished: both get the same weight.

    Args:
        references: the models to begin with as references (all by default); the others are weighed against them only.

    Raises:
        ValueError: there are fewer than two models, or fewer than two references.
    """
    references = list(range(len(similarity)) if references is None else references)
    if len(references) < 2:
        raise ValueError(f"agreement ranks several PRMs against each other: got {len(references)}, expected at least 2")
    weights = consistency_weights(similarity, references)
    steps = []
    while len(references) > 2:
        weakest = min(references, key=lambda model: weights[model])
        fewer = [model for model in references if model != weakest]
        before, after = mean_consistency(similarity, references), mean_consistency(similarity, fewer)
        if after <= before:
            break
        steps.append((weakest, before, after))
        references = fewer
        weights = consistency_weights(similarity, references)
    return ConsistencyRanking(weights.tolist(), [model in references for model in range(len(similarity))], steps)


def independent_ranking(
    names: Sequence[str], predictions: Sequence[Sequence[int]]
) -> tuple[ConsistencyRanking, list[str]]:
    """:func:`poem_ranking` with the independent models as references, and sentences on what fails and what was dropped.

    A clone has the weight of the model it repeats.
    """
    independent = independence(names, predictions)
    ranking = poem_ranking(agreement(predictions), independent.kept)
    weights = [ranking.weights[independent.twin_of.get(index, index)] for index in range(len(names))]
    said = list(independent.warnings)
    if left_out := [names[index] for index in range(len(names)) if index not in independent.kept]:
        said.append(f"no references, for the reasons above: {', '.join(left_out)}")
    said += [
        f"dropped as a reference: {names[model]}; without it the references agree in {after:.0%}, "
        f"with it in {before:.0%}"
        for model, before, after in ranking.steps
    ]
    return ConsistencyRanking(weights, ranking.kept, ranking.steps), said
