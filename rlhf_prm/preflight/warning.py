"""A warning for the start of a run whose PRM is no better than chance."""

import math

from rlhf_prm.preflight.within_groups import Measures
from rlhf_prm.preflight.wording import written

CHANCE = {"auroc_min": 0.5, "auroc_mean": 0.5, "rho": 0.0}
WHAT_TO_DO = (
    "Train with method=outcome, or mend the PRM first: check that --prm and its family fit the step format, then train "
    "it on labelled samples of this policy (rlhf-prm annotate, recipes/train_prm.py) and measure again with rlhf-prm "
    "preflight."
)


def warn_if_no_better_than_chance(measures: Measures) -> str | None:
    """A warning to print if the PRM does not rank a group's rollouts better than chance; None if it does.

    Better than chance: the AUROC within groups of the lowest or of the mean step score, or ρ, lies above chance by more
    than two standard errors. If nothing can be compared, the warning says so.
    """
    known = {name: value for name in CHANCE if (value := measures.get(name)) is not None}
    problems = f"{measures.get('problems') or 0:.0f} problems"
    if not known:
        unscored = measures.get("unscored_share") or 0.0
        why = (
            f"{100 * unscored:.0f} % of the rollouts have a step without a score"
            if unscored > 0.5
            else "no group holds a scored right and a scored wrong answer"
        )
        return (
            f"The PRM could not be measured on the policy's own rollouts ({problems}): {why}. Measure it on other "
            "problems or more samples with rlhf-prm preflight before trusting its rewards."
        )
    if any(_above(measures, name) for name in known):
        return None
    worse = all(_below(measures, name) for name in known)
    numbers = (
        f"AUROC within groups {written(measures, 'auroc_min')} by the lowest and {written(measures, 'auroc_mean')} by "
        f"the mean step score (chance .5), correlation of credit with outcome ρ {written(measures, 'rho')} (chance 0), "
        f"over {problems}"
    )
    said = "worse than chance" if worse else "no better than chance"
    doubt = "" if worse else " Or too few samples to tell: compare the standard errors (±), and measure on more."
    return f"The PRM is {said} on the policy's own rollouts: {numbers}. {WHAT_TO_DO}{doubt}"


def _above(measures: Measures, name: str) -> bool:
    return measures[name] - 2 * _error(measures, name) > CHANCE[name]


def _below(measures: Measures, name: str) -> bool:
    return measures[name] + 2 * _error(measures, name) < CHANCE[name]


def _error(measures: Measures, name: str) -> float:
    """The standard error; infinite if only one group could be compared."""
    error = measures.get(f"{name}_se")
    return math.inf if error is None else error
