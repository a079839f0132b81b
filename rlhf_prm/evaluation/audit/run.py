"""The whole audit of one PRM on one policy's samples."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from rlhf_prm.evaluation.audit import measures
from rlhf_prm.evaluation.audit.lines import AuditLine
from rlhf_prm.evaluation.audit.probes import PROBES, ProbeTexts, probe_line
from rlhf_prm.evaluation.samples import SampledProblem, scored_where_missing
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.statistics import WRONG_AT_OR_BELOW, predicted_first_error


@dataclass(frozen=True)
class AuditSettings:
    """How the audit measures.

    Args:
        n: of best-of-n; problems with fewer samples are left out of that line.
        threshold: a step is wrong at or below it.
        probe_problems: problems (drawn by ``seed``) on which the solutions are rewritten and scored again.
        texts: the texts of the probes.
    """

    n: int = 8
    threshold: float = WRONG_AT_OR_BELOW
    probe_problems: int = 200
    texts: ProbeTexts = field(default_factory=ProbeTexts)
    seed: int = 0


@dataclass(frozen=True)
class Audit:
    """The findings, and a few solutions as examples."""

    prm: str
    problems: int
    solutions: int
    lines: list[AuditLine]
    examples: list[dict]

    @property
    def verdict(self) -> str:
        """The worst verdict of the measured lines: unsafe, with care, ok; "not measured" if there is none."""
        verdicts = {line.verdict for line in self.lines}
        return next((verdict for verdict in ("unsafe", "with care", "ok") if verdict in verdicts), "not measured")

    def as_dict(self) -> dict:
        return asdict(self) | {"verdict": self.verdict}


def audit(
    scorer: StepScorer,
    samples: Sequence[SampledProblem],
    settings: AuditSettings | None = None,
    *,
    name: str = "PRM",
    labelled: Sequence[SampledProblem] = (),
) -> Audit:
    """Measure a PRM on a policy's checked samples.

    Args:
        samples: those with ``step_scores``, which must be this PRM's (this is not checked), are not scored again.
        labelled: further solutions with known first errors (such as ProcessBench's), for the tolerance line.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("got no samples to audit the PRM on")
    settings = settings or AuditSettings()
    samples = scored_where_missing(samples, scorer)
    process = [*samples, *scored_where_missing(labelled, scorer)]
    drawn = random.Random(settings.seed).sample(range(len(samples)), min(settings.probe_problems, len(samples)))
    some = [samples[index] for index in sorted(drawn)]
    full = [sample for sample in samples if len(sample.correct) >= settings.n]
    lines = [
        measures.minimum_at_last(samples),
        measures.tolerance(process, settings.threshold),
        *([measures.aggregation_ranking(full, settings.n, settings.seed)] if full else ()),
        measures.outcome_separation(samples, settings.threshold),
        measures.drift(samples, "position"),
        measures.drift(samples, "length"),
        measures.resplitting(some, scorer),
        *(probe_line(probe, some, scorer, settings.texts) for probe in PROBES),
    ]
    solutions = sum(len(sample.steps) for sample in samples)
    return Audit(name, len(samples), solutions, lines, _examples(process, settings.threshold))


def _examples(samples: Sequence[SampledProblem], threshold: float, most: int = 6) -> list[dict]:
    """Solutions on which the PRM is clearly wrong: wrong answers or known wrong steps that it passes, clearest first,
    and right ones that it rejects."""
    passed, rejected = [], []
    for sample in samples:
        errors = sample.first_errors or [None] * len(sample.correct)
        for steps, scores, correct, error in zip(sample.steps, sample.step_scores, sample.correct, errors, strict=True):
            predicted = predicted_first_error(scores, threshold)
            row = {
                "problem": sample.problem,
                "steps": steps,
                "scores": scores,
                "correct": correct,
                "first_error": error,
            }
            if predicted == -1 and (not correct or (error is not None and error >= 0)):
                passed.append(row | {"kind": "passes, but is wrong"})
            if predicted != -1 and correct and (error is None or error == -1):
                rejected.append(row | {"kind": "is right, but rejected"})
    passed.sort(key=lambda row: -min(row["scores"]))
    rejected.sort(key=lambda row: min(row["scores"]))
    return [*passed[: most // 2], *rejected[: most // 2]]


def with_first_errors(samples: Sequence[SampledProblem], judge) -> list[SampledProblem]:
    """The samples with ``first_errors`` from an exact checker ``judge(problem, steps) -> int``."""
    return [
        replace(sample, first_errors=[judge(sample.problem, steps) for steps in sample.steps]) for sample in samples
    ]
