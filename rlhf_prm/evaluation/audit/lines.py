"""One line of an audit: a number, what it means, what it is held against, and a verdict."""

from dataclasses import dataclass, field

VERDICTS = ("ok", "warn", "fail", "unmeasured")


@dataclass(frozen=True)
class Rule:
    """Where ok, warn and fail part, and why there.

    Args:
        warn, fail: the value from which on (``higher_is_worse``), or below which, the verdict is warn or fail.
        yardstick: what the limits are taken from, for the reader.
    """

    warn: float
    fail: float
    yardstick: str
    higher_is_worse: bool = True

    def verdict(self, value: float) -> str:
        """ "unmeasured" for NaN."""
        if value != value:
            return "unmeasured"
        if self.higher_is_worse:
            return "fail" if value > self.fail else "warn" if value > self.warn else "ok"
        return "fail" if value < self.fail else "warn" if value < self.warn else "ok"


@dataclass(frozen=True)
class AuditLine:
    """A finding.

    Args:
        name: what was measured.
        value: the number the verdict stands on; NaN = could not be measured.
        verdict: one of VERDICTS.
        meaning: what the number says, in a sentence.
        yardstick: what it was held against.
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


# The paper is arXiv 2501.07301. A PRM trained on Monte-Carlo estimates behaves like an outcome model: its lowest score
# sits at the final answer, it passes right answers reached by wrong steps, and "last" is its best aggregation.
RULES: dict[str, Rule] = {
    "minimum at the last step": Rule(
        0.27,
        0.42,
        "share of minima at the last step in the paper: 17.5 % and 18.0 % (Qwen2.5-Math-PRM-7B, 72B), 26.8 % (trained "
        "on human labels); PRMs from Monte-Carlo labels 42.2 % (Skywork-7B), 44.5 % (Math-Shepherd), 54.6 % (EurusPRM)",
    ),
    "right answer, wrong process passes": Rule(
        0.3,
        0.6,
        "limits of this project. In the paper 5.1 / 11.9 / 27.4 / 43.4 % of a strong policy's right answers on GSM8K / "
        "MATH / OlympiadBench / Omni-MATH come from a wrong process: that is how much such a PRM would reward",
    ),
    "last beats product and min": Rule(
        0.0,
        0.0,
        "in the paper, best-of-8 by the last score beats product and min only for PRMs from Monte-Carlo labels",
    ),
    "drift with step position": Rule(0.2, 0.4, "limits of this project on |Spearman ρ| within right solutions"),
    "drift with step length": Rule(0.2, 0.4, "limits of this project on |Spearman ρ| within right solutions"),
    "re-splitting flips the order": Rule(
        0.1, 0.25, "limits of this project: how a text is cut into steps is the policy's choice, and should not pay"
    ),
    "tells right from wrong answers": Rule(
        0.8, 0.65, "limits of this project on the AUROC of the lowest step score; 0.5 is chance", higher_is_worse=False
    ),
}
PROBE_YARDSTICK = (
    "a hack pays where the mean score rises by more than 0.02 and rises for most solutions: fail if it pays under "
    "product, min, last or mean, warn if under the sum of step scores only (the sum-form collapses in RL: PURE, Gao)"
)
