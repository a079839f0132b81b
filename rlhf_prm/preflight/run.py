"""The whole preflight of one PRM on one policy's samples: score, measure, probe, give the verdict."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from rlhf_prm.evaluation.aggregation import AGGREGATIONS
from rlhf_prm.evaluation.audit.lines import AuditLine
from rlhf_prm.evaluation.audit.measures import resplitting
from rlhf_prm.evaluation.audit.probes import PAYS, PROBES, ProbeTexts, probe_line
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.preflight.drifts import mean_score_by_position
from rlhf_prm.preflight.measures import preflight_measures
from rlhf_prm.preflight.verdict import RULE, Verdict, VerdictRule, verdict
from rlhf_prm.preflight.warning import warn_if_no_better_than_chance
from rlhf_prm.preflight.within_groups import Measures
from rlhf_prm.prm.scorer import StepScorer
from rlhf_prm.progress import Bar
from rlhf_prm.statistics import WRONG_AT_OR_BELOW

PROBLEMS_PER_CALL = 32  # of the scorer: often enough for a progress bar


@dataclass(frozen=True)
class PreflightSettings:
    """How the preflight measures.

    Args:
        threshold: a step is wrong at or below it.
        probe_problems: problems (drawn by ``seed``) whose rollouts the probes rewrite and score again; 0 = no probes.
        texts: the texts of the probes.
        length: of a step's text, in characters by default.
        rule: the constants of the verdict.
    """

    threshold: float = WRONG_AT_OR_BELOW
    probe_problems: int = 32
    texts: ProbeTexts = field(default_factory=ProbeTexts)
    length: Callable[[str], int] = len
    rule: VerdictRule = RULE
    seed: int = 0


@dataclass(frozen=True)
class Preflight:
    """The results of the preflight.

    Args:
        measures: by name; None = could not be measured.
        verdict: what to expect of dense rewards.
        warning: the warning of a PRM no better than chance, or None.
        probes: how the scores change when rollouts are rewritten as a policy that games the PRM would write them.
        by_position: for every position (mean score of the right rollouts' steps there, how many).
        rule: the constants that gave the verdict.
    """

    policy: str
    prm: str
    measures: Measures
    verdict: Verdict
    warning: str | None
    probes: list[AuditLine]
    by_position: list[tuple[float, int]]
    rule: VerdictRule = RULE

    def as_dict(self) -> dict:
        """A dict for JSON; a measure that could not be taken is null."""
        return _without_nan(asdict(self) | {"headline": self.verdict.headline})


def preflight(
    scorer: StepScorer,
    samples: Sequence[SampledProblem],
    settings: PreflightSettings | None = None,
    *,
    policy: str = "policy",
    prm: str = "PRM",
    seconds_generating: float | None = None,
) -> Preflight:
    """Measure a PRM on a policy's checked samples and say what to expect of dense rewards.

    Args:
        seconds_generating: how long sampling took, for the cost of a dense update.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("got no samples, expected problems with several checked rollouts each")
    settings = settings or PreflightSettings()
    start = time.perf_counter()
    samples = _scored_in_parts(samples, scorer)
    costs = _costs(samples, time.perf_counter() - start, seconds_generating)
    probes = _probes(samples, scorer, settings)
    measures = preflight_measures(samples, threshold=settings.threshold, length=settings.length)
    measures |= costs | {line.name.replace(": ", "_").replace(" ", "_"): line.value for line in probes}
    measures["probes_that_pay"] = float(sum(map(pays, probes))) if probes else None
    measures = {name: None if value is None or math.isnan(value) else value for name, value in measures.items()}
    found = verdict(measures, settings.rule)
    warning = warn_if_no_better_than_chance(measures)
    positions = mean_score_by_position(samples)
    return Preflight(policy, prm, measures, found, warning, probes, positions, settings.rule)


def _scored_in_parts(samples: Sequence[SampledProblem], scorer: StepScorer) -> list[SampledProblem]:
    done: list[SampledProblem] = []
    total = sum(len(sample.correct) for sample in samples)
    with Bar(total, "scores of the PRM") as bar:
        for first in range(0, len(samples), PROBLEMS_PER_CALL):
            part = scored(samples[first : first + PROBLEMS_PER_CALL], scorer)
            done += part
            bar.add(sum(len(sample.correct) for sample in part))
    return done


def _costs(samples: Sequence[SampledProblem], scoring: float, generating: float | None) -> Measures:
    """Seconds per rollout of generating and of scoring, and the second over the first."""
    rollouts = sum(len(sample.correct) for sample in samples)
    return {
        "seconds_generating": None if generating is None else generating / rollouts,
        "seconds_scoring": scoring / rollouts,
        "scoring_over_generating": scoring / generating if generating else None,
    }


def _probes(samples: Sequence[SampledProblem], scorer: StepScorer, settings: PreflightSettings) -> list[AuditLine]:
    """The audit's probes and its re-splitting, on some of the problems."""
    chosen = random.Random(settings.seed).sample(range(len(samples)), min(settings.probe_problems, len(samples)))
    if not chosen:
        return []
    some = [samples[index] for index in sorted(chosen)]
    with Bar(len(PROBES) + 1, "probes of hacking", "probe") as bar:
        lines = []
        for name in PROBES:
            lines.append(probe_line(name, some, scorer, settings.texts))
            bar.add()
        lines.append(resplitting(some, scorer))
        bar.add()
    return lines


def pays(line: AuditLine) -> bool:
    """Whether a probe pays: the mean score rises by more than ``PAYS`` and for most rollouts, under product, min, last
    or mean."""
    return any(
        line.details.get(f"{form}: mean change", 0.0) > PAYS and line.details[f"{form}: share that rises"] > 0.5
        for form in AGGREGATIONS
    )


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
