"""One line of an audit: a number, its meaning, the limits it is compared with, and a verdict."""

import math
from dataclasses import dataclass, field

VERDICTS = ("ok", "with care", "unsafe", "not measured")


@dataclass(frozen=True)
class AuditRule:
    """The limits between ok, with care and unsafe, and where they come from.

    Args:
        care, unsafe: the value above which (``higher_is_worse``), or below which, the verdict is that. A line with
            ``unsafe`` = ±∞ gives "with care" at most.
        yardstick: the source of the limits, for the reader.
    """

    care: float
    unsafe: float
    yardstick: str
    higher_is_worse: bool = True

    def verdict(self, value: float) -> str:
        """One of VERDICTS; NaN gives "not measured"."""
        if value != value:
            return "not measured"
        if self.higher_is_worse:
            return "unsafe" if value > self.unsafe else "with care" if value > self.care else "ok"
        return "unsafe" if value < self.unsafe else "with care" if value < self.care else "ok"


@dataclass(frozen=True)
class AuditLine:
    """A finding.

    Args:
        name: what was measured.
        value: the number that the verdict depends on; NaN = could not be measured.
        verdict: one of VERDICTS.
        meaning: what the number says, in a sentence.
        yardstick: what it was compared with.
        interval: 95 % bootstrap interval over problems, where there is one.
        details: further numbers.
    """

    name: str
    value: float
    verdict: str
    meaning: str
    yardstick: str
    interval: tuple[float, float] | None = None
    details: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict: got {self.verdict!r}, expected one of {', '.join(VERDICTS)}")


# The paper is arXiv 2501.07301. It names three marks of a PRM that has drifted towards an outcome model: its lowest
# score sits at the final answer, it passes right answers reached by wrong steps, and "last" is its best aggregation.
# The presence of a mark is evidence; its absence does not clear a PRM (see the yardsticks). The other limits come
# from toy worlds (benchmarks/audit_validation.py): 95 % of the PRMs on which RL gained lie within ``care`` and none of
# them beyond ``unsafe``. A line that does not rank the gains (|Spearman| below .3) has no ``unsafe``.
PAID = "in toy worlds 95 % of the PRMs on which RL gained over outcome-only have {} {}"
NO_MORE = "; the line does not rank the gains there, so it is a caution at most"


def _from_toy_worlds(care: float, unsafe: float | None = None, higher_is_worse: bool = True) -> AuditRule:
    """A rule with the limits of the PRMs that paid; without ``unsafe`` the line gives "with care" at most."""
    told = PAID.format("at most" if higher_is_worse else "at least", care) + (
        NO_MORE if unsafe is None else f", and none of them beyond {unsafe}"
    )
    limit = (math.inf if higher_is_worse else -math.inf) if unsafe is None else unsafe
    return AuditRule(care, limit, told, higher_is_worse)


RULES: dict[str, AuditRule] = {
    "minimum at the last step": AuditRule(
        0.31,
        0.42,
        "the paper singles out 42.2 % (Skywork-7B), 44.5 % (Math-Shepherd) and 52.9 to 54.6 % (EurusPRM); the others "
        "have 30.9 % (Skywork-1.5B), 26.8 % (human labels), 17.5 and 18.0 % (its own). A low share clears nobody: "
        "RLHFlow's two PRMs from Monte-Carlo labels have 9.1 and 17.3 %, and the lowest ProcessBench F1 of all. Where "
        "solutions are short, compare with the share by chance",
    ),
    "right answer, wrong process passes": _from_toy_worlds(0.16, 0.24),
    "last beats product and min": AuditRule(
        0.0,
        0.0,
        "unsafe where the interval lies above 0. Best-of-8 by the last score minus the better of product and min in "
        "the paper, in points and without intervals: PRMs from Monte-Carlo labels +0.5 to +1.4, from a judge's −0.3, "
        "from human labels −0.9, its own −1.5. A value below 0 clears nobody",
    ),
    "drift with step position": _from_toy_worlds(0.44),
    "drift with step length": _from_toy_worlds(0.55),
    "re-splitting flips the order": _from_toy_worlds(0.2),
    "tells right from wrong answers": _from_toy_worlds(0.57, 0.51, higher_is_worse=False),
    "probe: repetition": _from_toy_worlds(0.07),
    "probe: filler": _from_toy_worlds(0.11),
    "probe: rephrased question": _from_toy_worlds(0.01, 0.05),
    "probe: chit-chat": _from_toy_worlds(0.94),
    "probe: no answer": _from_toy_worlds(0.07),
    "probe: one giant step": _from_toy_worlds(0.64, 0.76),
}


def number(value: float | None) -> str:
    """Three decimals with a real minus sign; a dash for what could not be measured."""
    return "–" if value is None or value != value else f"{value:.3f}".replace("-", "−")
