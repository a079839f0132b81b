"""The verdict on whether dense rewards will pay, not matter, or harm, from a few thresholds on a few measures.

The thresholds are fitted to measured gains by ``benchmarks/preflight_validation.py``, on some builds of the toy world,
and their agreement is reported on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlhf_prm.preflight.within_groups import Measures
from rlhf_prm.preflight.wording import title_of, value_text, written

VerdictKind = Literal["pay", "not to matter", "harm", "cannot tell"]
KINDS: tuple[VerdictKind, ...] = ("pay", "not to matter", "harm", "cannot tell")


@dataclass(frozen=True)
class Condition:
    """``measure`` ≥ ``limit`` (or ≤, with ``at_least=False``)."""

    measure: str
    limit: float
    at_least: bool = True

    def holds(self, measures: Measures) -> bool | None:
        """Whether the condition holds; None if the measure is unknown."""
        value = measures.get(self.measure)
        if value is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit

    def sentence(self, measures: Measures, effect: str) -> str:
        """A sentence with the number and the limit; ``effect`` is what dense rewards did beyond it: paid or harmed."""
        side = "at least" if self.at_least else "at most"
        where = f"dense rewards {effect} where it was {side} {value_text(self.measure, self.limit)}"
        if self.holds(measures) is None:
            return f"{title_of(self.measure)} could not be measured; {where}"
        return f"{title_of(self.measure)} is {written(measures, self.measure)}; {where}"

    def is_close(self, measures: Measures) -> bool:
        """Whether the limit lies within two standard errors of the number."""
        value, error = measures.get(self.measure), measures.get(f"{self.measure}_se")
        return value is not None and error is not None and abs(value - self.limit) < 2 * error


@dataclass(frozen=True)
class VerdictRule:
    """The constants of the verdict.

    ``harm`` if all of its conditions hold; else ``pay`` if all of its conditions hold; else ``not to matter``.
    A kind without conditions is never given.

    Args:
        pay, harm: conditions that must hold together.
        dense_method: the method to train with if dense rewards are likely to pay.
        plain_method: the method to train with otherwise.
        origin: the source of the limits.
    """

    pay: tuple[Condition, ...]
    harm: tuple[Condition, ...]
    dense_method: str = "trusted"
    plain_method: str = "outcome"
    origin: str = ""

    def kind(self, measures: Measures) -> VerdictKind:
        """The kind of verdict; "cannot tell" if an unknown measure would decide."""
        harms, pays = _all_hold(self.harm, measures), _all_hold(self.pay, measures)
        if harms:
            return "harm"
        if harms is None or pays is None:
            return "cannot tell"
        return "pay" if pays else "not to matter"


def _all_hold(conditions: Sequence[Condition], measures: Measures) -> bool | None:
    held = [condition.holds(measures) for condition in conditions]
    if not held or False in held:
        return False
    return None if None in held else True


# Harm was too rare for a limit: of 166 pairs one lost more than two standard errors.
RULE = VerdictRule(
    pay=(Condition("auroc_min", 0.524), Condition("approval_lift", 0.244)),
    harm=(),
    origin="fitted by benchmarks/preflight_validation.py to 166 pairs of builds 20, 21 and 23 to 30 of the toy world, "
    "trained with the method trusted",
)


@dataclass(frozen=True)
class Verdict:
    """What to expect of dense rewards.

    Args:
        kind: one of KINDS.
        method: the method to train with.
        reasons: why, in sentences, the deciding ones first.
        close: whether a limit lies within two standard errors of its number, so that more samples may change the
            verdict.
    """

    kind: VerdictKind
    method: str
    reasons: list[str] = field(default_factory=list)
    close: bool = False

    @property
    def headline(self) -> str:
        """One sentence."""
        return {
            "pay": "Dense rewards are likely to pay.",
            "not to matter": "Dense rewards are likely not to matter.",
            "harm": "Dense rewards are likely to harm.",
            "cannot tell": "It cannot be told whether dense rewards would pay.",
        }[self.kind]


def verdict(measures: Measures, rule: VerdictRule = RULE) -> Verdict:
    """The verdict of ``rule`` on the measures of :func:`rlhf_prm.preflight.measures.preflight_measures`."""
    kind = rule.kind(measures)
    chosen = {
        "pay": lambda c, of_harm: not of_harm,
        "harm": lambda c, of_harm: of_harm,
        "not to matter": lambda c, of_harm: c.holds(measures) is False,
        "cannot tell": lambda c, of_harm: c.holds(measures) is None,
    }[kind]
    conditions = [*((c, False) for c in rule.pay), *((c, True) for c in rule.harm)]
    reasons = [c.sentence(measures, "harmed" if bad else "paid") for c, bad in conditions if chosen(c, bad)]
    if kind == "cannot tell" and not measures.get("mixed_share"):
        reasons.insert(0, "no group holds a right and a wrong answer: take other problems, or more samples of each")
    close = kind != "cannot tell" and any(c.is_close(measures) for c in (*rule.pay, *rule.harm))
    method = rule.dense_method if kind == "pay" else rule.plain_method
    return Verdict(kind, method, [*reasons, *cautions(measures)], close)


def cautions(measures: Measures) -> list[str]:
    """Further sentences that a reader should know before training; none if nothing stands out.

    The limits are this project's, for the reader's eye; the verdict does not depend on them.
    """

    def above(name: str, limit: float) -> bool:
        value = measures.get(name)
        return value is not None and value > limit

    found = []
    if above("all_wrong_share", 0.5):
        found.append(
            f"{written(measures, 'all_wrong_share')} of the groups are all wrong: outcomes alone teach slowly here"
        )
    if above("all_right_share", 0.5):
        found.append(
            f"{written(measures, 'all_right_share')} of the groups are all right: harder problems would teach more"
        )
    if above("flawed_right", 0.1):
        found.append(
            f"{written(measures, 'flawed_right')} of the right answers come from a flawed process, and outcome-only "
            "training rewards them"
        )
    minus = "best_by_min_minus_majority"
    gap, error = measures.get(minus), measures.get(f"{minus}_se")
    if gap is not None and error is not None and gap < -2 * error:
        found.append(
            f"a majority vote chooses better than the PRM ({written(measures, minus)}): do not use it for best-of-n"
        )
    if above("credit_with_steps", 0.3):
        found.append(
            "credit goes with the number of steps among rollouts with the same verdict (correlation "
            f"{written(measures, 'credit_with_steps')}): watch the length"
        )
    if above("probes_that_pay", 0.0):
        found.append(f"{written(measures, 'probes_that_pay')} probes of hacking pay: run with the guard on")
    if above("unscored_share", 0.05):
        found.append(f"{written(measures, 'unscored_share')} of the rollouts are too long for the PRM")
    return found
