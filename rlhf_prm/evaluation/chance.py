"""The chance level of first-error F1: the best guess that does not look at a solution's text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan, sqrt

CHANCE_AUROC = 0.5
MEASURED = {  # what F1 and AUROC of a target's one label a step, or a solution, are called
    "steps": ("first-error F1", "step AUROC"),
    "outcome": ("F1 of whole solutions", "AUROC of whole solutions"),
}


def chance_f1(first_errors: Sequence[int]) -> float:
    """The highest expected first-error F1 of a guess that does not look at the solution.

    A *constant* guess has F1 0: it is right about erroneous solutions or about correct ones, never about both. A random
    guess does better. It says "step k" with probability π, where k is the most common first error and m the share of
    erroneous solutions with that first error, and "no error" otherwise: error accuracy π·m, correct accuracy 1 − π.
    Their harmonic mean is largest at π = 1 / (1 + √m), where it is 2m / (1 + √m)².

    Args:
        first_errors: 0-based index of each solution's first wrong step, −1 if there is none.

    Returns:
        0 if the solutions are all erroneous or all correct (F1 is then 0 for every guess).
    """
    positions = Counter(error for error in first_errors if error >= 0)
    erroneous = sum(positions.values())
    if not erroneous or erroneous == len(first_errors):
        return 0.0
    commonest = positions.most_common(1)[0][1] / erroneous
    return 2 * commonest / (1 + sqrt(commonest)) ** 2


def no_better_than_chance(metrics: Mapping[str, float], target: str = "steps") -> list[str]:
    """Sentences on which of ``f1`` and ``auroc`` are not above chance; empty if both are.

    Args:
        metrics: ``f1``, ``chance_f1`` and ``auroc``; a NaN AUROC (labels of one class only) is ignored.
        target: as in :func:`beside_chance`.
    """
    f1, auroc = MEASURED[target]
    found = []
    if metrics["f1"] <= metrics["chance_f1"]:
        found.append(f"{f1} {metrics['f1']:.3f} where a blind guess has {metrics['chance_f1']:.3f}")
    if not isnan(metrics["auroc"]) and metrics["auroc"] <= CHANCE_AUROC:
        found.append(f"{auroc} {metrics['auroc']:.3f} where chance is {CHANCE_AUROC}")
    return found


def beside_chance(metrics: Mapping[str, float], target: str = "steps") -> str:
    """One line: F1 and AUROC with what chance would give.

    Args:
        target: of the model. An outcome model has one label a solution, so its F1 is the harmonic mean of the wrong
            answers that it recognises and the right ones that it passes.
    """
    f1, auroc = MEASURED[target]
    return (
        f"held-out {f1} {metrics['f1']:.3f} (blind guess {metrics['chance_f1']:.3f}, constant 0), "
        f"{auroc} {metrics['auroc']:.3f} (chance {CHANCE_AUROC})"
    )
