"""The measures of a policy and a PRM that need only verified and scored samples, each one number.

:func:`preflight_measures` gives all of them by name. A name with ``_se`` is the standard error, over problems, of the
number before it. None = could not be measured.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rlhf_prm.evaluation.aggregation import AGGREGATIONS, solution_score
from rlhf_prm.evaluation.best_of_n import problem_values
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.against_labels import flawed_process, step_labels
from rlhf_prm.preflight.credit import positional_credit, summed_credit
from rlhf_prm.preflight.drifts import drift
from rlhf_prm.preflight.within_groups import (
    Measures,
    auroc_within,
    auroc_within_positions,
    correlation_within,
    jackknife,
    ratio,
)
from rlhf_prm.statistics import WRONG_AT_OR_BELOW


def preflight_measures(
    samples: Sequence[SampledProblem],
    *,
    threshold: float = WRONG_AT_OR_BELOW,
    length: Callable[[str], int] = len,
) -> Measures:
    """All measures that need no further call of a model.

    Rollouts with a step without a score (NaN) count for the outcomes only; ``unscored_share`` says how many they are.

    Args:
        samples: with ``step_scores``; ``first_errors`` where they are known.
        threshold: a step is wrong at or below it.
        length: of a step's text, in characters by default; pass a tokenizer's count for tokens.

    Raises:
        ValueError: there are no samples or no scores, or not one score per step.
    """
    _check(samples)
    kept = [group for group in map(_scored_rollouts, samples) if group is not None]
    measures: Measures = {
        **outcome_measures(samples),
        **unscored(samples),
        **flawed_process(kept, threshold),
        **selection(samples),
        **separation(kept),
        **step_labels(kept, threshold),
        **drift(kept, length),
        **trust(kept),
        **approval(kept, threshold),
    }
    return {name: _finite(value) for name, value in measures.items()}


def outcome_measures(samples: Sequence[SampledProblem]) -> Measures:
    """How often the policy is right, and the shares of groups that are mixed, all wrong and all right.

    Outcome-only training learns from mixed groups only. A problem with one rollout is not a group.
    """
    groups = [sample.correct for sample in samples if len(sample.correct) > 1]
    shares = {
        "mixed_share": [0 < sum(correct) < len(correct) for correct in groups],
        "all_wrong_share": [not any(correct) for correct in groups],
        "all_right_share": [all(correct) for correct in groups],
    }
    return {
        "problems": float(len(samples)),
        "rollouts": float(sum(len(sample.correct) for sample in samples)),
        **ratio([(sum(sample.correct), len(sample.correct)) for sample in samples]).named("accuracy"),
        **{
            key: value
            for name, hits in shares.items()
            for key, value in ratio([(float(hit), 1.0) for hit in hits]).named(name).items()
        },
    }


def unscored(samples: Sequence[SampledProblem]) -> Measures:
    """Share of rollouts with a step that the PRM could not score."""
    rows = [any(map(math.isnan, scores)) for sample in samples for scores in sample.step_scores]
    return {"unscored_share": sum(rows) / len(rows)}


def selection(samples: Sequence[SampledProblem]) -> Measures:
    """Best-of-n by the PRM compared with the majority vote, over the problems with at least n samples.

    n is the most common number of samples. A rollout with an unscored step is never chosen. ``headroom_used`` is
    (best of n by the lowest score − mean of 1) / (pass of n − mean of 1): 0 = no better than a random choice, 1 =
    always right if one of the n is right.
    """
    sizes = Counter(len(sample.correct) for sample in samples)
    n = max(sizes, key=lambda size: (sizes[size], size))
    if n < 2:
        return dict.fromkeys(("n", *(key for key, _ in _rules(2)), *_COMPARED), None)
    rows = [problem_values(sample, n) for sample in samples if len(sample.correct) >= n]
    values = {key: np.array([row[rule] for row in rows]) for key, rule in _rules(n)}
    votes = any(answer is not None for sample in samples for answer in sample.answers)
    against = values["majority"] if votes else np.full(len(rows), math.nan)
    gained, possible = values["best_by_min"] - values["mean_of_1"], values["pass_of_n"] - values["mean_of_1"]
    return {
        "n": float(n),
        **{key: float(column.mean()) for key, column in values.items()},
        "majority": float(against.mean()),
        **ratio([(value, 1.0) for value in values["best_by_min"] - against]).named("best_by_min_minus_majority"),
        **ratio(list(zip(gained, possible, strict=True))).named("headroom_used"),
    }


def _rules(n: int) -> list[tuple[str, str]]:
    """(our name, the name in ``problem_values``)."""
    best = [(f"best_by_{how}", f"{how}@{n}") for how in AGGREGATIONS]
    return [("mean_of_1", "mean@1"), ("pass_of_n", f"pass@{n}"), ("majority", f"maj@{n}"), *best]


_COMPARED = ("best_by_min_minus_majority", "best_by_min_minus_majority_se", "headroom_used", "headroom_used_se")


def separation(samples: Sequence[SampledProblem]) -> Measures:
    """AUROC within groups of a rollout's lowest, mean and last score and of its summed credit against the verdict, and
    of single steps against their rollout's verdict, at the same position."""
    measures: Measures = {}
    for how in ("min", "mean", "last"):
        groups = [([solution_score(row, how) for row in sample.step_scores], sample.correct) for sample in samples]
        measures |= auroc_within(groups).named(f"auroc_{how}")
    steps = [[(row, [right] * len(row)) for row, right in zip(s.step_scores, s.correct, strict=True)] for s in samples]
    return {
        **measures,
        **auroc_within((summed_credit(s), s.correct) for s in samples).named("auroc_credit"),
        **auroc_within_positions(steps).named("auroc_same_position"),
    }


def trust(samples: Sequence[SampledProblem]) -> Measures:
    """ρ: the correlation, within groups, of a rollout's summed positional credit with its verified outcome; over all
    groups, and over the mixed ones alone (in the others no credit can follow the outcome). ``credit_size`` is the root
    mean square of a step's credit."""
    groups = [(summed_credit(s), [float(correct) for correct in s.correct]) for s in samples if len(s.correct) > 1]
    squares = [c * c for s in samples if len(s.correct) > 1 for row in positional_credit(s.step_scores) for c in row]
    return {
        **correlation_within(groups).named("rho"),
        **correlation_within(group for group in groups if 0 < sum(group[1]) < len(group[1])).named("rho_mixed"),
        "credit_size": math.sqrt(sum(squares) / len(squares)) if squares else None,
    }


def approval(samples: Sequence[SampledProblem], threshold: float) -> Measures:
    """How well approval predicts the answer: the share of rollouts that the PRM approves (no step at or below
    ``threshold``), the share of right ones among them, and the lift (that − the policy's own) / (1 − the policy's own),
    from which the method ``trusted`` computes its trust: 1 for exact labels, 0 if approval is uninformative."""
    rows = []
    for sample in samples:
        approved = [min(scores) > threshold for scores in sample.step_scores]
        both = sum(a and c for a, c in zip(approved, sample.correct, strict=True))
        rows.append((float(both), float(sum(approved)), float(sum(sample.correct)), float(len(approved))))

    def lift(sums: np.ndarray) -> np.ndarray:
        both, approved, right, total = (sums[..., i] for i in range(4))
        base = right / total
        return np.where((approved > 0) & (base < 1), (both / approved - base) / (1 - base), np.nan)

    return {
        **ratio([(row[1], row[3]) for row in rows]).named("approved_share"),
        **ratio([row[:2] for row in rows]).named("approved_right"),
        **jackknife(rows, lift).named("approval_lift"),
    }


def _scored_rollouts(sample: SampledProblem) -> SampledProblem | None:
    """The sample without its rollouts that have an unscored step; None if none is left."""
    keep = [i for i, scores in enumerate(sample.step_scores) if not any(map(math.isnan, scores))]
    if not keep:
        return None
    lists = ("steps", "correct", "answers", "step_scores", "first_errors")
    given = {name: getattr(sample, name) for name in lists if getattr(sample, name) is not None}
    return replace(sample, **{name: [values[i] for i in keep] for name, values in given.items()})


def _check(samples: Sequence[SampledProblem]) -> None:
    if not samples:
        raise ValueError("got no samples to measure, expected problems with several checked and scored rollouts each")
    for sample in samples:
        where = f"problem {sample.problem[:60]!r}"
        if sample.step_scores is None:
            raise ValueError(f"{where}: no step scores; pass the samples through rlhf_prm.evaluation.samples.scored")
        counts = [len(steps) for steps in sample.steps]
        if [len(scores) for scores in sample.step_scores] != counts or 0 in counts:
            raise ValueError(
                f"{where}: got {[len(scores) for scores in sample.step_scores]} step scores for {counts} steps, "
                "expected one score per step and at least one step in every rollout"
            )
        if sample.first_errors is not None and len(sample.first_errors) != len(sample.steps):
            raise ValueError(
                f"{where}: got {len(sample.first_errors)} first errors for {len(sample.steps)} rollouts, expected one "
                "each (None where it is not known)"
            )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
