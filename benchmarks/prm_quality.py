"""How good a PRM's scores are where first errors are known exactly: what ``process_outcome.py`` measures."""

from collections.abc import Sequence

from rlhf_prm.evaluation.chance import chance_f1
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.evaluation.samples import SampledProblem
from rlhf_prm.preflight.against_labels import right_steps
from rlhf_prm.preflight.within_groups import auroc_within
from rlhf_prm.statistics import auroc, predicted_first_error


def exact_scores(samples: Sequence[SampledProblem]) -> list[list[list[float]]]:
    """1 for every step before a solution's first error, 0 from it on: the scores of a PRM that is never wrong."""
    return [
        [
            [float(right) for right in right_steps(len(steps), error)]
            for steps, error in zip(one.steps, one.first_errors, strict=True)
        ]
        for one in samples
    ]


def quality(samples: Sequence[SampledProblem], threshold: float = 0.5) -> dict[str, float]:
    """F1, step AUROC up to the first error, and AUROC of scores against the answer within groups.

    ``group_auroc`` is that of a solution's lowest score, which a process model is asked for, and ``last_auroc`` that of
    its last one, which an outcome model is asked for: P(a right answer scores above a wrong one to the same problem),
    ties ½.

    Args:
        threshold: a step is wrong at or below it.
    """
    scores = [row for one in samples for row in one.step_scores]
    truth = [error for one in samples for error in one.first_errors]
    points = [
        (score, k < error or error < 0)
        for row, error in zip(scores, truth, strict=True)
        for k, score in enumerate(row[: error + 1] if error >= 0 else row)
    ]
    return {
        **processbench_metrics([predicted_first_error(row, threshold) for row in scores], truth),
        "chance_f1": chance_f1(truth),
        "auroc": auroc([score for score, _ in points], [right for _, right in points]),
        "group_auroc": _answers_auroc(samples, min),
        "last_auroc": _answers_auroc(samples, lambda row: row[-1]),
    }


def _answers_auroc(samples: Sequence[SampledProblem], score_of) -> float:
    found = auroc_within(([score_of(row) for row in one.step_scores], one.correct) for one in samples).value
    return float("nan") if found is None else found
