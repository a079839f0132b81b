"""Several solutions of each problem, split into steps and verified: the input of best-of-n and the audit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward.verifier import Verifier
from rlhf_prm.columns import SAMPLES_COLUMNS, SOLUTION_COLUMNS, gold_of, problem_of
from rlhf_prm.evaluation.rows import read_items, texts as texts_in, whole
from rlhf_prm.generation import Generator
from rlhf_prm.generation.requests import unit_seed
from rlhf_prm.prm.protocol import StepScorer
from rlhf_prm.progress import Bar
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
    part: int = 512,
) -> list[SampledProblem]:
    """``n`` checked samples per problem, with a bar over the problems.

    Args:
        prompts: what the policy is given, if that is not the problem's text.
        part: prompts per call of the generator; samples depend on ``seed`` and the problem's index, not on this.
    """
    given = list(problems if prompts is None else prompts)
    seeds = [unit_seed(seed, index) for index in range(len(given))]
    completions: list[list[str]] = []
    with Bar(len(given), "sample", "problem") as bar:
        for start in range(0, len(given), part):
            prompts_of_part = given[start : start + part]
            completions += generator.generate(prompts_of_part, n, seed=seeds[start : start + part], stop=None)
            bar.add(len(prompts_of_part))
    return checked_samples(problems, completions, solutions, verifier, splitter)


def scored(samples: Sequence[SampledProblem], scorer: StepScorer) -> list[SampledProblem]:
    """The samples with ``step_scores`` from one call of the scorer."""
    problems = [sample.problem for sample in samples for _ in sample.steps]
    scores = iter(scorer.score(problems, [steps for sample in samples for steps in sample.steps]))
    return [replace(sample, step_scores=[next(scores) for _ in sample.steps]) for sample in samples]


def scored_where_missing(samples: Sequence[SampledProblem], scorer: StepScorer) -> list[SampledProblem]:
    """The samples with ``step_scores``; those that have them keep them, the others are scored in one call."""
    missing = [sample for sample in samples if sample.step_scores is None]
    new = iter(scored(missing, scorer) if missing else ())
    return [next(new) if sample.step_scores is None else sample for sample in samples]


def rescored(
    samples: Sequence[SampledProblem], rewritten: Sequence[list[str]], scorer: StepScorer
) -> list[list[float]]:
    """Scores of the ``rewritten`` solutions, one for each solution of all samples in order; unchanged solutions
    keep their scores."""
    old = [
        (sample.problem, steps, scores)
        for sample in samples
        for steps, scores in zip(sample.steps, sample.step_scores, strict=True)
    ]
    changed = [steps != new for (_, steps, _), new in zip(old, rewritten, strict=True)]
    problems = [problem for (problem, _, _), is_new in zip(old, changed, strict=True) if is_new]
    new = [steps for steps, is_new in zip(rewritten, changed, strict=True) if is_new]
    scores = iter(scorer.score(problems, new) if new else ())
    return [next(scores) if is_new else kept for (_, _, kept), is_new in zip(old, changed, strict=True)]


@dataclass(frozen=True)
class SampleRow:
    """A row of a samples file: a problem, N solutions as texts, the gold answer, and optional columns."""

    problem: str
    completions: list[str]
    solution: str
    category: str | None = None
    first_errors: list[int | None] | None = None


MOST_STEPS = 10_000  # a limit only, because the steps are not cut yet when a row is read


# How other programs write samples: our column → theirs. A row with all columns of a layout is read by it.
LAYOUTS: dict[str, dict[str, str]] = {
    "Qwen2.5-Math evaluation": {"problem": "question", "completions": "code", "solution": "gt"},
}


def read_sample_rows(
    path: str | Path,
    problem_column: str | None = None,
    solution_column: str | None = None,
    completions_column: str | None = None,
) -> list[SampleRow]:
    """The rows of a samples file, read but not verified: a problem, ``completions`` (or ``responses``, as ``rlhf-prm
    annotate sample`` writes them) and the gold answer, or those columns in one of ``LAYOUTS``. A row may bring
    ``category``, and ``first_errors`` (one per completion, 0-based, −1 = none, null = not known).

    Raises:
        ValueError: the file or a row cannot be read; the message names the row.
    """

    def item(row: dict[str, Any]) -> SampleRow:
        layout = next((its for its in LAYOUTS.values() if row.keys() >= set(its.values())), {})
        gold_column = solution_column or layout.get("solution")
        solution = gold_of(row, gold_column)
        if solution is None:
            raise ValueError(f"no gold answer in {gold_column or ' or '.join(SOLUTION_COLUMNS)}")
        usual = next((name for name in SAMPLES_COLUMNS if row.get(name) is not None), SAMPLES_COLUMNS[0])
        column = completions_column or layout.get("completions") or usual
        problem = problem_of(row, problem_column or layout.get("problem"))
        completions, errors, category = texts_in(row, column), row.get("first_errors"), row.get("category")
        if errors is not None and not (isinstance(errors, list) and len(errors) == len(completions)):
            raise ValueError(
                f"first_errors: got {errors!r:.60}, expected one for each of {len(completions)} completions"
            )
        if category is not None and not isinstance(category, str):
            raise ValueError(f"category: got {category!r:.60}, expected a text")
        known = errors and [
            error if error is None else whole(error, "first_errors", -1, MOST_STEPS, "a step from 0, or -1 for none")
            for error in errors
        ]
        return SampleRow(problem, completions, solution, category, known)

    return read_items(path, item, f"samples: a problem, {' or '.join(SAMPLES_COLUMNS)} (texts), and a gold answer")


def verified_samples(
    rows: Sequence[SampleRow], verifier: Verifier, splitter: StepSplitter | None = None
) -> list[SampledProblem]:
    """Rows of a samples file, verified and split; a row whose gold the verifier cannot read is left out."""
    checked = checked_samples(
        [str(index) for index in range(len(rows))],  # one call for all rows; the index finds a row's own columns again
        [row.completions for row in rows],
        [row.solution for row in rows],
        verifier,
        splitter,
    )
    found = [(sample, rows[int(sample.problem)]) for sample in checked]
    for sample, row in found:
        for steps, error in zip(sample.steps, row.first_errors or [], strict=False):
            if error is not None and error >= len(steps):
                raise ValueError(
                    f"problem {row.problem[:60]!r}: first error {error} of a completion with {len(steps)} steps; "
                    "are they cut at the separator that the labels were made with?"
                )
    return [
        replace(sample, problem=row.problem, category=row.category, first_errors=row.first_errors)
        for sample, row in found
    ]


def load_samples(path: str | Path, verifier: Verifier, splitter: StepSplitter | None = None) -> list[SampledProblem]:
    """The rows of :func:`read_sample_rows`, with the verifier's verdicts."""
    return verified_samples(read_sample_rows(path), verifier, splitter)
