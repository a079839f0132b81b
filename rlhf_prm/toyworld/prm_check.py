"""A world's PRM measured on held-out problems: first errors, best-of-n and the audit, against exact labels."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rlhf_prm.evaluation.audit import AuditSettings, ProbeTexts, audit
from rlhf_prm.evaluation.audit.page import write_audit_page
from rlhf_prm.evaluation.best_of_n import best_of_n
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.prm.scorer import StepScorer
from rlhf_prm.statistics import first_error, predicted_first_error
from rlhf_prm.toyworld.problems import FILLERS, SEPARATOR
from rlhf_prm.toyworld.verifier import ExactMatchVerifier, final_answer

TEXTS = ProbeTexts(filler=FILLERS, chit_chat=FILLERS, rephrase="{problem}")


@runtime_checkable
class CheckedWorld(Protocol):
    """A world whose solutions can be checked exactly."""

    settings: Any

    def held_out_solutions(self, problems: int, per_problem: int = 1, *, seed: int = 0) -> list[dict[str, Any]]:
        """The starting policy's solutions of held-out problems, with exact labels; those of a problem adjacent."""
        ...


def checked_samples(world: CheckedWorld, problems: int, per_problem: int) -> list[SampledProblem]:
    """The starting policy's samples of held-out problems, verified, with exact first errors."""
    rows = world.held_out_solutions(problems, per_problem, seed=1000 + world.settings.seed)
    samples = []
    for start in range(0, len(rows), per_problem):
        group = rows[start : start + per_problem]
        texts = [SEPARATOR.join(row["completions"]) for row in group]
        verdicts = ExactMatchVerifier().verify(texts, [row["solution"] for row in group])
        samples.append(
            SampledProblem(
                group[0]["prompt"],
                [row["completions"] for row in group],
                [verdict.reward == 1.0 for verdict in verdicts],
                [final_answer(text) for text in texts],
                first_errors=[first_error(row["labels"]) for row in group],
            )
        )
    return samples


def check_prm(
    world: CheckedWorld,
    scorer: StepScorer,
    page: Path,
    problems: int = 100,
    per_problem: int = 8,
    *,
    texts: ProbeTexts = TEXTS,
    name: str = "toy PRM",
) -> dict[str, Any]:
    """ProcessBench's metrics, best-of-n accuracies and the audit's verdicts; the audit's page goes to ``page``.

    ``texts`` are the texts of the audit's probes, in the world's own language.
    """
    samples = scored(checked_samples(world, problems, per_problem), scorer)
    predictions = [predicted_first_error(row) for sample in samples for row in sample.step_scores]
    truth = [error for sample in samples for error in sample.first_errors]
    settings = AuditSettings(n=per_problem, probe_problems=min(problems, 50), texts=texts)
    findings = audit(scorer, samples, settings, name=name)
    write_audit_page(page, [findings])
    return {
        "first_error": processbench_metrics(predictions, truth),
        "best_of_n": {rule: values["mean"] for rule, values in best_of_n(samples, per_problem, resamples=20).items()},
        "audit": {line.name: line.verdict for line in findings.lines},
    }
