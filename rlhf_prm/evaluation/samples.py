"""Several solutions of each problem, split into steps and checked: what best-of-n and the audit measure on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.annotate.generators import Generator
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.steps import StepSplitter


@dataclass(frozen=True)
class SampledProblem:
    """A problem and N solutions of it; the lists run in parallel.

    Args:
        steps: the steps of each solution.
        correct: whether each final answer is right.
        answers: each final answer as text, for majority votes; None = no answer, which casts no vote.
        step_scores: a PRM's scores, once :func:`scored` has filled them in.
        first_errors: 0-based first wrong step of each solution, −1 = none, None = not known.
        category: any label of the problem, for results by category.
    """

    problem: str
    steps: list[list[str]]
    correct: list[bool]
    answers: list[str | None]
    step_scores: list[list[float]] | None = None
    first_errors: list[int | None] | None = None
    category: str | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.steps), len(self.correct), len(self.answers)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"problem {self.problem[:60]!r}: got {len(self.steps)} solutions, {len(self.correct)} verdicts and "
                f"{len(self.answers)} answers, expected as many of each, at least one"
            )


def checked_samples(
    problems: Sequence[str],
    completions: Sequence[Sequence[str]],
    solutions: Sequence[str],
    verifier: Verifier,
    splitter: StepSplitter | None = None,
) -> list[SampledProblem]:
    """Completions of each problem, split and verified against its gold solution.

    Problems whose gold the verifier cannot read (reward None) are left out.
    """
    splitter = splitter or StepSplitter()
    flat = [text for texts in completions for text in texts]
    golds = [gold for gold, texts in zip(solutions, completions, strict=True) for _ in texts]
    verdicts = iter(verifier.verify(flat, golds))
    samples = []
    for problem, texts in zip(problems, completions, strict=True):
        these = [next(verdicts) for _ in texts]
        if texts and all(verdict.reward is not None for verdict in these):
            samples.append(
                SampledProblem(
                    problem,
                    [splitter.split(text) for text in texts],
                    [verdict.reward > 0 for verdict in these],
                    [None if verdict.answer is None else " ".join(verdict.answer.split()) for verdict in these],
                )
            )
    return samples


def policy_samples(
    generator: Generator,
    problems: Sequence[str],
    solutions: Sequence[str],
    verifier: Verifier,
    n: int,
    *,
    prompts: Sequence[Any] | None = None,
    splitter: StepSplitter | None = None,
    seed: int = 0,
) -> list[SampledProblem]:
    """``n`` checked samples per problem. ``prompts``: what the policy is given, where it is not the problem's text."""
    given = list(problems if prompts is None else prompts)
    return checked_samples(problems, generator.generate(given, n, seed=seed), solutions, verifier, splitter)


def scored(samples: Sequence[SampledProblem], scorer: StepScorer) -> list[SampledProblem]:
    """The samples with ``step_scores`` from one call of the scorer."""
    problems = [sample.problem for sample in samples for _ in sample.steps]
    scores = iter(scorer.score(problems, [steps for sample in samples for steps in sample.steps]))
    return [replace(sample, step_scores=[next(scores) for _ in sample.steps]) for sample in samples]


def load_samples(path: str | Path, verifier: Verifier, splitter: StepSplitter | None = None) -> list[SampledProblem]:
    """Samples from a JSONL file: ``problem`` (or ``prompt``), ``completions`` (texts), and ``solution`` (the gold).

    ``responses``, as ``rlhf-prm annotate sample`` writes them, are read as completions. A row may bring ``category``,
    and ``first_errors`` (one per completion).

    Raises:
        ValueError: a row lacks a column; the message names the row.
    """
    rows = [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]
    columns = [_columns(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    checked = checked_samples(
        [str(index) for index in range(len(rows))],  # one call for all rows; the index finds a row's own columns again
        [completions for _, completions, _ in columns],
        [solution for _, _, solution in columns],
        verifier,
        splitter,
    )
    return [
        replace(
            sample,
            problem=columns[int(sample.problem)][0],
            category=rows[int(sample.problem)].get("category"),
            first_errors=rows[int(sample.problem)].get("first_errors"),
        )
        for sample in checked
    ]


def _columns(row: dict[str, Any], where: str) -> tuple[str, list[str], str]:
    problem = row.get("problem", row.get("prompt"))
    completions = row.get("completions", row.get("responses"))
    if problem is None or completions is None or row.get("solution") is None:
        raise ValueError(
            f"{where}: got the columns {', '.join(row)}, expected problem (or prompt), completions (or responses: a "
            "list of texts) and solution (the gold answer)"
        )
    return problem, completions, str(row["solution"])
