"""The cached stages between policy and PRM: solutions, Monte-Carlo labels, the judge's labels, the labels used."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_prm.files import read_json_lines, write_json, write_json_lines
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.step_data import StepLabels
from rlhf_prm.toyworld import labels
from rlhf_prm.toyworld.problems import ChainProblem
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.stages import Stage, StageCache

ROWS = "rows.jsonl"
EXACT = {"gold": labels.gold_labels, "outcome": labels.outcome_labels}  # from the solutions alone
STAGE_OF = {"mc": "monte_carlo"}  # label sources whose stage has another name


def label_stages(
    cache: StageCache, settings: ToyWorldSettings, policy: Stage, problems: Sequence[ChainProblem]
) -> dict[str, Stage]:
    """The stages from the policy to labelled solutions that ``label_source`` needs; the last is ``labels``."""
    source, seeded = settings.label_source, partial(settings.subset, "seed")
    sampled = cache.stage(
        "solutions",
        seeded("labelled_solutions"),
        partial(_build_solutions, settings, policy.path, problems),
        (policy,),
    )
    stages = {"solutions": sampled}
    if source in ("consensus", "mc"):
        build = partial(_build_monte_carlo, settings, policy.path, sampled.path)
        stages["monte_carlo"] = cache.stage("monte_carlo", seeded("mc_completions"), build, (sampled,))
    if source in ("consensus", "confirmed", "judge"):
        build = partial(_build_judged, settings, sampled.path)
        asked = seeded("judge_flips") if settings.judge_votes == 1 else seeded("judge_flips", "judge_votes")
        stages["judge"] = cache.stage("judge", asked, build, (sampled,))
    if source == "confirmed":
        build = partial(_build_confirmed, settings, policy.path, sampled.path, stages["judge"].path)
        stages["confirmed"] = cache.stage("confirmed", seeded("mc_completions"), build, (sampled, stages["judge"]))
    build = partial(_build_labels, source, {name: stage.path for name, stage in stages.items()})
    return {**stages, "labels": cache.stage("labels", {"source": source}, build, tuple(stages.values()))}


def _build_solutions(
    settings: ToyWorldSettings, policy_path: Path, problems: Sequence[ChainProblem], folder: Path
) -> None:
    sampler = labels.policy_sampler(policy_path, settings.max_completion_length, progress="PRM: sampled solutions")
    write_json_lines(folder / ROWS, labels.sampled_solutions(sampler, problems, seed=settings.seed))


def _build_monte_carlo(settings: ToyWorldSettings, policy_path: Path, solutions: Path, folder: Path) -> None:
    sampler = labels.policy_sampler(policy_path, settings.max_completion_length)
    estimated = labels.monte_carlo_labels(
        read_json_lines(solutions / ROWS), sampler, num_completions=settings.mc_completions, seed=settings.seed
    )
    write_json_lines(folder / ROWS, labels_as_records(estimated))


def _build_judged(settings: ToyWorldSettings, solutions: Path, folder: Path) -> None:
    judged = labels.judged_labels(
        read_json_lines(solutions / ROWS), flips=settings.judge_flips, seed=settings.seed, votes=settings.judge_votes
    )
    write_json_lines(folder / ROWS, labels_as_records(judged))


def _build_confirmed(
    settings: ToyWorldSettings, policy_path: Path, solutions: Path, judged: Path, folder: Path
) -> None:
    sampler = labels.policy_sampler(policy_path, settings.max_completion_length, progress="PRM: confirmed labels")
    confirmed = labels.confirmed_labels(
        read_json_lines(solutions / ROWS),
        labels_from_records(read_json_lines(judged / ROWS)),
        sampler,
        num_completions=settings.mc_completions,
        seed=settings.seed,
    )
    write_json_lines(folder / ROWS, labels_as_records(confirmed))


def _build_labels(source: str, paths: dict[str, Path], folder: Path) -> None:
    """Stepwise rows of the solutions the source labels, and for the consensus its report."""
    solutions = read_json_lines(paths["solutions"] / ROWS)
    given = {
        name: labels_from_records(read_json_lines(paths[name] / ROWS))
        for name in ("monte_carlo", "judge", "confirmed")
        if name in paths
    }
    if source == "consensus":
        chosen, report = labels.agreed_labels(given["monte_carlo"], given["judge"])
        write_json(folder / "consensus.json", report)
    elif source in EXACT:
        chosen = EXACT[source](solutions)
    else:
        chosen = given[STAGE_OF.get(source, source)]
    write_json_lines(folder / ROWS, labels.stepwise_rows(solutions, chosen))


def labels_as_records(labels: Sequence[StepLabels | Rejection]) -> list[dict[str, Any]]:
    """Labels and rejections as JSON objects, in order."""
    return [vars(one) for one in labels]


def labels_from_records(records: Sequence[dict[str, Any]]) -> list[StepLabels | Rejection]:
    """What ``labels_as_records`` was given."""
    return [Rejection(**record) if "reason" in record else StepLabels(**record) for record in records]
