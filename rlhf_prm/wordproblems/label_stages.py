"""The cached stages between policy and PRM: solutions with their token ids, and labels from every source."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_prm.annotate.monte_carlo import MonteCarloSettings, monte_carlo
from rlhf_prm.files import read_json_lines, write_json, write_json_lines
from rlhf_prm.generation.requests import Sample, unit_seed
from rlhf_prm.steps import StepSplitter
from rlhf_prm.toyworld import labels
from rlhf_prm.toyworld.label_stages import ROWS, STAGE_OF, labels_as_records, labels_from_records
from rlhf_prm.toyworld.problems import SEPARATOR
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.verifier import ExactMatchVerifier
from rlhf_prm.wordproblems.checker import WORDS
from rlhf_prm.wordproblems.problems import WordProblem
from rlhf_prm.wordproblems.sampler import ROWS as ROWS_AT_ONCE, TextSampler, load_policy
from rlhf_prm.wordproblems.settings import WordWorldSettings

PART = 100  # solutions whose labels or samples are written together; a killed stage loses at most these


def label_stages(
    cache: StageCache, settings: WordWorldSettings, policy: Stage, problems: Sequence[WordProblem]
) -> dict[str, Stage]:
    """The stages from the policy to labelled solutions that ``label_source`` needs; the last is ``labels``."""
    source, seeded = settings.label_source, partial(settings.subset, "seed", "max_completion_length")
    partly = cache.root / ".parts"
    sampled = cache.stage(
        "solutions",
        seeded("labelled_solutions"),
        partial(_build_solutions, settings, policy, problems, partly),
        (policy,),
    )
    stages = {"solutions": sampled}
    if source in ("mc", "consensus"):
        build = partial(_build_monte_carlo, settings, policy, sampled, partly)
        stages["monte_carlo"] = cache.stage("monte_carlo", seeded("mc_completions"), build, (sampled,))
    if source in ("judge", "consensus"):
        build = partial(_build_judged, settings, sampled.path)
        stages["judge"] = cache.stage("judge", settings.subset("seed", "judge_flips", "judge_votes"), build, (sampled,))
    build = partial(_build_labels, source, {name: stage.path for name, stage in stages.items()})
    return {**stages, "labels": cache.stage("labels", {"source": source}, build, tuple(stages.values()))}


def messages(problem: str) -> list[dict[str, str]]:
    """The messages that the policy is given."""
    return [{"role": "user", "content": problem}]


def sampled_rows(
    sampler: TextSampler, problems: Sequence[WordProblem], *, seed: int, per_problem: int = 1
) -> list[dict[str, Any]]:
    """Rows of ``prompt`` (the problem), ``steps``, ``solution`` and the policy's own ``ids`` and ``prompt_ids``.

    The ``per_problem`` samples of a problem are adjacent. Its random numbers depend only on it and the seed; the
    rounding of bfloat16 also depends on the other rows of the batch.
    """
    splitter = StepSplitter(SEPARATOR)
    asked = [messages(problem.text) for problem in problems]
    seeds = [unit_seed(seed, problem.text) for problem in problems]
    return [
        {
            **{"prompt": problem.text, "steps": splitter.split(sample), "solution": problem.solution},
            **{"text": str(sample), "ids": sample.ids, "prompt_ids": sample.prompt_ids},
        }
        for problem, group in zip(problems, sampler.generate(asked, per_problem, seed=seeds), strict=True)
        for sample in group
    ]


def _sampler(settings: WordWorldSettings, policy: Stage, progress: str | None = None) -> TextSampler:
    return TextSampler(*load_policy(policy.path), max_new_tokens=settings.max_completion_length, progress=progress)


def _build_solutions(
    settings: WordWorldSettings, policy: Stage, problems: Sequence[WordProblem], partly: Path, folder: Path
) -> None:
    sampler = _sampler(settings, policy, "PRM: sampled solutions")

    def part(chosen: Sequence[WordProblem], first: int) -> list[dict[str, Any]]:
        return sampled_rows(sampler, chosen, seed=settings.seed)

    name = f"solutions-{policy.key}-{len(problems)}-{settings.max_completion_length}"
    _write_in_parts(folder / ROWS, partly / name, problems, part)


def _build_monte_carlo(
    settings: WordWorldSettings, policy: Stage, solutions: Stage, partly: Path, folder: Path
) -> None:
    sampler = _sampler(settings, policy, "PRM: Monte-Carlo completions")

    def given(problem: str) -> str:
        return sampler.tokenizer.apply_chat_template(messages(problem), tokenize=False, add_generation_prompt=True)

    def part(rows: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
        seed = unit_seed(settings.seed, "labels", first)
        labelled = monte_carlo(
            [row["prompt"] for row in rows],
            [row["steps"] for row in rows],
            [row["solution"] for row in rows],
            sampler,
            ExactMatchVerifier(),
            settings=MonteCarloSettings(settings.mc_completions, separator=SEPARATOR, seed=seed),
            template=given,
            window=ROWS_AT_ONCE,
            sampled=[Sample(row["text"], row["ids"], row["prompt_ids"]) for row in rows],
        )
        return labels_as_records(labelled)

    name = f"monte_carlo-{solutions.key}-{settings.mc_completions}"
    _write_in_parts(folder / ROWS, partly / name, read_json_lines(solutions.path / ROWS), part)


def _write_in_parts(path: Path, partly: Path, items: Sequence[Any], build: Any) -> None:
    """Write the rows of ``build(part, its first index)`` for one part of ``PART`` items after the other.

    Each part is kept in ``partly`` until all are finished, so a killed stage continues after its last one; the name of
    that folder must identify what the parts depend on.
    """
    partly.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(items), PART):
        kept = partly / f"{first}.jsonl"
        if not kept.exists():
            write_json_lines(kept, build(items[first : first + PART], first))
        rows += read_json_lines(kept)
    write_json_lines(path, rows)
    shutil.rmtree(partly)


def _build_judged(settings: WordWorldSettings, solutions: Path, folder: Path) -> None:
    rows = read_json_lines(solutions / ROWS)
    judged = labels.judged_labels(
        rows, flips=settings.judge_flips, seed=settings.seed, votes=settings.judge_votes, checker=WORDS
    )
    write_json_lines(folder / ROWS, labels_as_records(judged))


def _build_labels(source: str, paths: dict[str, Path], folder: Path) -> None:
    """Stepwise rows of the solutions that the source labels; for the consensus also its report."""
    rows = read_json_lines(paths["solutions"] / ROWS)
    given = {
        name: labels_from_records(read_json_lines(paths[name] / ROWS))
        for name in ("monte_carlo", "judge")
        if name in paths
    }
    if source == "consensus":
        chosen, report = labels.agreed_labels(given["monte_carlo"], given["judge"])
        write_json(folder / "consensus.json", report)
    else:
        chosen = labels.gold_labels(rows, WORDS) if source == "gold" else given[STAGE_OF.get(source, source)]
    write_json_lines(folder / ROWS, labels.stepwise_rows(rows, chosen))
