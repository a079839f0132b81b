"""Compares the PRM with known first errors, and counts right answers reached by a flawed process."""

from collections.abc import Sequence

from rlhf_prm.evaluation.audit.measures import tolerance
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.credit import positional_credit
from rlhf_prm.preflight.within_groups import Estimate, Measures, auroc_within_positions, jackknife, ratio
from rlhf_prm.statistics import auroc, predicted_first_error


def flawed_process(samples: Sequence[SampledProblem], threshold: float) -> Measures:
    """Of the right answers, the share with a wrong step: by the PRM's first error, and by the labels where there are
    any; and the share of the truly flawed ones that pass the PRM unnoticed."""
    by_prm, by_labels = [], []
    for sample in samples:
        right = [i for i, correct in enumerate(sample.correct) if correct]
        flagged = sum(predicted_first_error(sample.step_scores[i], threshold) >= 0 for i in right)
        by_prm.append((flagged, len(right)))
        known = [sample.first_errors[i] for i in right if is_labelled(sample, i)]
        by_labels.append((sum(error >= 0 for error in known), len(known)))
    return {
        **ratio(by_prm).named("flawed_right_by_prm"),
        **ratio(by_labels).named("flawed_right"),
        "flawed_right_that_pass": tolerance(samples, threshold).value,
    }


def step_labels(samples: Sequence[SampledProblem], threshold: float) -> Measures:
    """Against known first errors: first-error F1, step AUROC (over everything; within groups at the same position),
    and how much more credit a right step gets than a first error.

    A step is right before the first error and wrong from it on; a rollout without error is right throughout.
    """
    known = [(s.step_scores[i], s.first_errors[i]) for s in samples for i in range(len(s.correct)) if is_labelled(s, i)]
    predictions = [predicted_first_error(scores, threshold) for scores, _ in known]
    errors = [error for _, error in known]
    found = processbench_metrics(predictions, errors)
    has_errors, has_right = any(e >= 0 for e in errors), any(e < 0 for e in errors)
    labels = [right_steps(len(scores), error) for scores, error in known]
    return {
        "labelled_rollouts": float(len(known)),
        "error_accuracy": found["error_accuracy"] if has_errors else None,
        "correct_accuracy": found["correct_accuracy"] if has_right else None,
        "first_error_f1": found["f1"] if has_errors and has_right else None,
        "step_auroc": auroc([p for scores, _ in known for p in scores], [right for row in labels for right in row]),
        **auroc_within_positions(map(_labelled_steps, samples)).named("step_auroc_same_position"),
        **_credit_gap(samples).named("credit_gap"),
    }


def _labelled_steps(sample: SampledProblem) -> list[tuple[list[float], list[bool]]]:
    """(scores, labels) of the rollouts whose first error is known."""
    return [
        (sample.step_scores[i], right_steps(len(sample.step_scores[i]), sample.first_errors[i]))
        for i in range(len(sample.correct))
        if is_labelled(sample, i)
    ]


def _credit_gap(samples: Sequence[SampledProblem]) -> Estimate:
    """Mean positional credit of right steps minus that of first errors, over the labelled rollouts."""
    rows = []
    for sample in samples:
        good, bad = [0.0], [0.0]
        for i, credit in enumerate(positional_credit(sample.step_scores)):
            if is_labelled(sample, i):
                error = sample.first_errors[i]
                good += credit if error < 0 else credit[:error]
                bad += credit[error : error + 1] if error >= 0 else []
        rows.append((sum(good), len(good) - 1, sum(bad), len(bad) - 1))
    return jackknife(rows, lambda sums: sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3])


def right_steps(steps: int, error: int) -> list[bool]:
    """True for every step before the first error; −1 = no error."""
    return [error < 0 or k < error for k in range(steps)]


def is_labelled(sample: SampledProblem, index: int) -> bool:
    """Whether the rollout's first error is known."""
    return sample.first_errors is not None and sample.first_errors[index] is not None
