"""What every measure is called for a reader, and what it means. One :class:`Wording` per measure, in reading order."""

import math
from dataclasses import dataclass
from typing import Literal

from rlhf_prm.evaluation.audit.lines import number
from rlhf_prm.preflight.within_groups import Measures

Kind = Literal["share", "number", "count", "seconds"]


@dataclass(frozen=True)
class Wording:
    """How a measure is put to a reader. What was found of it is in the measures (an audit's findings: ``AuditLine``).

    Args:
        measure: its name in the measures.
        title: what a reader calls it.
        meaning: what it says, in a sentence or two.
        kind: how it is written: a share as per cent, a plain number, a count, seconds.
    """

    measure: str
    title: str
    meaning: str
    kind: Kind = "number"


SECTIONS: dict[str, tuple[Wording, ...]] = {
    "Is there anything to learn from outcomes?": (
        Wording("accuracy", "right answers", "share of rollouts whose final answer the verifier accepts", "share"),
        Wording(
            "mixed_share",
            "mixed groups",
            "groups with right and wrong answers: the only ones outcome-only training learns from",
            "share",
        ),
        Wording("all_wrong_share", "all-wrong groups", "outcome-only training learns nothing from them", "share"),
        Wording("all_right_share", "all-right groups", "nor from these; there is little left to gain here", "share"),
        Wording(
            "flawed_right",
            "right answers by a flawed process (labels)",
            "right answers with a known wrong step: outcome-only training rewards them",
            "share",
        ),
        Wording(
            "flawed_right_by_prm",
            "right answers the PRM finds a wrong step in",
            "an honest flaw or a false alarm: only labels tell which",
            "share",
        ),
        Wording(
            "flawed_right_that_pass", "of the flawed ones, unnoticed by the PRM", "the PRM rewards these too", "share"
        ),
    ),
    "Can the PRM tell right from wrong within a group?": (
        Wording(
            "rho",
            "ρ, credit with outcome",
            "correlation, within groups, of a rollout's summed positional credit (its step scores, each less the mean "
            "of the group's other rollouts at the same position) with its verdict; 0 = the credit knows nothing",
        ),
        Wording("rho_mixed", "ρ in mixed groups", "the same where there is an outcome to follow"),
        Wording(
            "approved_share",
            "approved rollouts",
            "rollouts in which the PRM finds no wrong step",
            "share",
        ),
        Wording("approved_right", "right among the approved", "1 for exact step labels", "share"),
        Wording(
            "approval_lift",
            "lift of approval",
            "(right among the approved − right among all) / (1 − right among all): 1 for exact labels, 0 where "
            "approval says nothing; the trust of the method trusted rests on it",
        ),
        Wording(
            "auroc_min",
            "AUROC of the lowest score",
            "chance that of a right and a wrong rollout of one group the right one has the higher lowest step score; "
            ".5 = a coin",
        ),
        Wording("auroc_mean", "AUROC of the mean score", "the same with the mean step score"),
        Wording("auroc_last", "AUROC of the last score", "the same with the last step score"),
        Wording("auroc_credit", "AUROC of the summed credit", "the same with what a dense update would add in all"),
        Wording(
            "auroc_same_position",
            "AUROC of steps by their verdict",
            "chance that a step of a right rollout scores above the step of a wrong one at the same position: does the "
            "PRM know before the end?",
        ),
        Wording(
            "step_auroc_same_position",
            "AUROC of steps, same position (labels)",
            "chance that a right step scores above a wrong one at the same position of another rollout of the group",
        ),
        Wording("step_auroc", "AUROC of steps (labels)", "the same over all steps of all problems"),
        Wording(
            "first_error_f1", "first-error F1 (labels)", "does the PRM find the first wrong step? ProcessBench's F1"
        ),
        Wording(
            "credit_gap",
            "credit of right steps over first errors (labels)",
            "how much more credit a right step gets than a first error; at or below 0 a dense update teaches errors",
        ),
    ),
    "Does it choose better than the majority vote?": (
        Wording("mean_of_1", "one sample", "share right without any choice", "share"),
        Wording("majority", "majority of n", "the most frequent answer", "share"),
        Wording(
            "best_by_min", "best of n by the lowest score", "the rollout with the highest lowest step score", "share"
        ),
        Wording("best_by_mean", "best of n by the mean score", "the one with the highest mean", "share"),
        Wording(
            "best_by_last",
            "best of n by the last score",
            "the one with the highest last score; where this is best, the PRM judges the outcome",
            "share",
        ),
        Wording("best_by_product", "best of n by the product", "the one with the highest product of scores", "share"),
        Wording("pass_of_n", "any of n", "the most that choosing can reach", "share"),
        Wording(
            "headroom_used",
            "headroom used",
            "of the way from one sample to any of n, the part that the lowest score goes; 0 = a blind choice",
            "share",
        ),
        Wording(
            "best_by_min_minus_majority",
            "lowest score over majority",
            "below 0 a vote without a PRM is better",
            "share",
        ),
    ),
    "What else moves the scores?": (
        Wording(
            "position_slope",
            "change of score per step",
            "in right rollouts, from one step to the next; positional credit takes it out, other methods pay for it",
        ),
        Wording("drift_position", "drift with position", "rank correlation of score and position in right rollouts"),
        Wording(
            "drift_length", "drift with step length", "rank correlation of score and step length in right rollouts"
        ),
        Wording(
            "score_with_steps",
            "mean score with number of steps",
            "within groups, among rollouts with the same verdict: above 0 the PRM likes long rollouts as such",
        ),
        Wording(
            "credit_with_steps",
            "summed credit with number of steps",
            "the same for the credit: what writing more earns",
        ),
        Wording("credit_with_length", "summed credit with length", "the same with the length of the text"),
        Wording(
            "credit_size", "size of a step's credit", "root mean square; near 0 a dense update changes next to nothing"
        ),
        Wording("probes_that_pay", "hacks that pay", "probes that raise a bounded score of most rollouts", "count"),
        Wording("unscored_share", "rollouts without a score", "with a step past the PRM's context", "share"),
    ),
    "What does a dense update cost?": (
        Wording("seconds_generating", "generating, per rollout", "as the samples were drawn here", "seconds"),
        Wording("seconds_scoring", "scoring, per rollout", "what the PRM adds to it", "seconds"),
        Wording(
            "scoring_over_generating",
            "scoring over generating",
            "how much longer generation and scoring take together than generation alone",
            "share",
        ),
    ),
}
WORDINGS: dict[str, Wording] = {one.measure: one for section in SECTIONS.values() for one in section}


def title_of(measure: str) -> str:
    """The reader's name of a measure, or its own name where it is not shown."""
    return WORDINGS[measure].title if measure in WORDINGS else measure


def written(measures: Measures, name: str) -> str:
    """A measure with its standard error as a reader sees it: "12.5 % ± 2.1", ".312 ± .040", "–" where unmeasured."""
    value, error = measures.get(name), measures.get(f"{name}_se")
    if value is None or math.isnan(value):
        return "–"
    text = value_text(name, value)
    return text if error is None else f"{text} ± {_ERRORS[_kind(name)](error)}"


def value_text(name: str, value: float) -> str:
    """A value of a measure, as :func:`written` writes it."""
    return _WRITERS[_kind(name)](value)


def _kind(name: str) -> Kind:
    return WORDINGS[name].kind if name in WORDINGS else "number"


_WRITERS = {
    "share": lambda value: f"{100 * value:.1f} %".replace("-", "−"),
    "number": number,
    "count": lambda value: f"{value:.0f}",
    "seconds": lambda value: f"{value:.3g} s",
}
_ERRORS = {**_WRITERS, "share": lambda error: f"{100 * error:.1f}"}
