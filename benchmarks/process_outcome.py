"""Which labels lead to a judge of steps and which to a judge of outcomes: the study of arXiv 2501.07301, in toy worlds.

    python benchmarks/process_outcome.py run --builds 20 21 22 23 24 25 --parts sources
    python benchmarks/process_outcome.py run --builds 21 22 --sources gold "mc hard"      # some cells only
    python benchmarks/process_outcome.py show            # the tables, to the screen
    python benchmarks/process_outcome.py page            # docs/process_outcome.md

In each build a policy that is right in about 60 % solves 2,000 problems. The same solutions are labelled by the
verifier (an outcome reward model learns that), by Monte-Carlo completions (hard and soft, and at higher thresholds,
from the same hits), by a judge, by the consensus of both (hard and soft), and exactly. A model is trained on each, with
equal settings, and measured on 8 samples of 300 held-out problems. One verdict a solution teaches next to nothing on
2,000 of them, so a second outcome model has the verdicts on 16,000, at every step. The settings were chosen on build
20. Every cell is a line of ``benchmarks/results/process_outcome.jsonl`` when it is done, and is not done again. About 4
CPU-minutes a build for the sources, 3 for the thresholds and 1 for the searches, on one core.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from prm_quality import exact_scores, quality
from process_outcome_page import page, tables

from rlhf_prm.annotate.relabel import relabelled
from rlhf_prm.evaluation.audit.measures import minimum_at_last
from rlhf_prm.evaluation.best_of_n import best_of_n
from rlhf_prm.evaluation.guided_search import compare_guided
from rlhf_prm.evaluation.processbench import best_threshold, processbench_metrics, wrong_process_metrics
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.evaluation.step_search import SearchSettings
from rlhf_prm.files import read_json, read_json_lines
from rlhf_prm.generation.tasks import Rejection
from rlhf_prm.prm import load_prm
from rlhf_prm.statistics import predicted_first_error
from rlhf_prm.step_data import StepLabels
from rlhf_prm.toyworld import labels
from rlhf_prm.toyworld.label_stages import ROWS, labels_from_records
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.toyworld.reward_model import TRAINING, train_reward_model
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.stages import Stage, StageCache
from rlhf_prm.toyworld.verifier import ExactMatchVerifier
from rlhf_prm.toyworld.world import ToyWorld, build_world, problem_splits

WORLD = {
    "wrong_facts": 0.1,
    "labelled_solutions": 2000,
    "mc_completions": 8,
    "judge_flips": 0.02,
    "label_source": "consensus",
}
TRAIN = {
    "updates": 400, "batch_size": 32, "learning_rate": 1e-3, "lr_scheduler_type": "linear",
    "held_out": 0.1, "eval_every": 100, "patience": 0,
}  # fmt: skip
OUTCOME = {"target": "outcome", "metric": "auroc"}  # F1 at 0.5 says little of an outcome model
MORE = 16_000  # solutions of the second outcome model
OUTCOME_OF_MORE = OUTCOME | {"verdict_at": "every_step", "updates": 1000, "eval_every": 250}
PROBLEMS, SAMPLES = 300, 8
TUNED_ON = 100  # of these problems: the threshold of "f1_tuned", which the others measure
THRESHOLDS = [k / 8 for k in range(1, 8)]  # 0 is "mc hard"
SOURCES = ("gold", "mc hard", "judge", "consensus hard", "outcome", "outcome 16k", "mc soft", "consensus soft")
EXACT = "exact labels"  # no model: the checker's own labels as step scores
SEARCH, SEARCHED, WIDTH = "search", 150, 8  # guided by the PRM of the consensus, hard labels
PARTS = {
    "sources": (*SOURCES, EXACT),
    "thresholds": tuple(f"mc hard >{t:g}" for t in THRESHOLDS),
    "search": (SEARCH,),
}
RESULTS = Path(__file__).parent / "results" / "process_outcome.jsonl"
PROBES = RESULTS.with_name("outcome_probes.jsonl")
DOCS = Path(__file__).parents[1] / "docs" / "process_outcome.md"
Labels = Sequence[StepLabels | Rejection]


def labelled(world: ToyWorld, source: str) -> tuple[list[dict], Labels]:
    """The world's solutions and what ``source`` says of each."""
    if source == "outcome 16k":
        solutions = more_solutions(world.settings, world.policy_path)
        return solutions, labels.outcome_labels(solutions)
    solutions = read_json_lines(world.stages["solutions"].path / ROWS)
    mc, judge = (labels_from_records(read_json_lines(world.stages[n].path / ROWS)) for n in ("monte_carlo", "judge"))
    if source.startswith("mc"):
        kind, _, threshold = source.removeprefix("mc ").partition(" >")
        return solutions, [relabelled(one, float(threshold or 0), kind) for one in mc]
    if source.startswith("consensus"):
        return solutions, labels.agreed_labels(mc, judge)[0]
    given = {"judge": lambda rows: judge, "gold": labels.gold_labels, "outcome": labels.outcome_labels}
    return solutions, given[source](solutions)


@cache
def more_solutions(settings: ToyWorldSettings, policy: Path) -> list[dict]:
    """One solution of each of ``MORE`` problems, the world's labelled ones first."""
    problems = problem_splits(replace(settings, labelled_solutions=MORE))["labelled"]
    sampler = labels.policy_sampler(policy, settings.max_completion_length)
    return labels.sampled_solutions(sampler, problems, seed=settings.seed)


def trained(world: ToyWorld, source: str, cache: StageCache) -> Stage:
    """The model trained on what ``source`` labels; the same settings for all but the outcome models."""
    rows = labels.stepwise_rows(*labelled(world, source))
    loss = {"loss": "mse", "metric": "loss"} if source.endswith("soft") else {"loss": "ce"}
    own = {"outcome": OUTCOME, "outcome 16k": OUTCOME_OF_MORE}.get(source, {})
    settings = {"seed": world.settings.seed, **TRAIN, **loss, **own}
    build = partial(_train, world.policy_path, rows, settings)
    upstream = tuple(world.stages[name] for name in ("policy", "solutions", "monte_carlo", "judge"))
    return cache.stage("study_model", {"source": source, **settings}, build, upstream)


def _train(policy: Path, rows: Sequence[dict], settings: dict, folder: Path) -> None:
    train_reward_model(policy, rows, folder, **settings)


def measured(samples: Sequence[SampledProblem]) -> dict[str, float]:
    """First errors, the marks of an outcome model, and best-of-8 of scored samples."""
    scores = [row for one in samples for row in one.step_scores]
    truth = [error for one in samples for error in one.first_errors]
    answers = [right for one in samples for right in one.correct]
    best = {rule: values["mean"] for rule, values in best_of_n(samples, SAMPLES, resamples=1).items()}
    return {
        **quality(samples),
        **tuned_f1(samples[:TUNED_ON], samples[TUNED_ON:]),
        **wrong_process_metrics([predicted_first_error(row) for row in scores], truth, answers),
        "minimum_at_last": minimum_at_last(samples).value,
        **{rule: best[f"{rule}@{SAMPLES}"] for rule in ("pass", "maj", "product", "min", "last")},
        "mean@1": best["mean@1"],
        "last_minus": best[f"last@{SAMPLES}"] - max(best[f"product@{SAMPLES}"], best[f"min@{SAMPLES}"]),
    }


def tuned_f1(chosen_on: Sequence[SampledProblem], rest: Sequence[SampledProblem]) -> dict[str, float]:
    """First-error F1 of ``rest`` at the threshold that is best on other problems, as ProcessBench does it."""
    (scores, errors), (others, truth) = (
        ([row for one in part for row in one.step_scores], [error for one in part for error in one.first_errors])
        for part in (chosen_on, rest)
    )
    threshold = best_threshold(scores, errors)
    found = processbench_metrics([predicted_first_error(row, threshold) for row in others], truth)
    return {"threshold": threshold, "f1_tuned": found["f1"]}


def label_facts(solutions: Sequence[dict], given: Labels) -> dict[str, float]:
    """How many solutions have labels, and how often the first error they name is the exact one."""
    gold = labels.gold_labels(solutions)
    pairs = [
        (one.first_error, g.first_error) for one, g in zip(given, gold, strict=True) if isinstance(one, StepLabels)
    ]
    return {
        "rows": len(pairs),
        "label_accuracy": float(np.mean([one == exact for one, exact in pairs])),
        "label_error_accuracy": float(np.mean([one == exact for one, exact in pairs if exact >= 0])),
        "label_correct_accuracy": float(np.mean([one == exact for one, exact in pairs if exact < 0])),
    }


@cache
def built(build: int, root: str) -> tuple[ToyWorld, list[SampledProblem]]:
    """The world of a build, and the held-out samples that its models are measured on."""
    world = build_world(ToyWorldSettings(seed=build, **WORLD), root, with_prm=False)
    return world, checked_samples(world, PROBLEMS, SAMPLES)


def cell(build: int, source: str, root: str) -> dict:
    """One build and source, measured."""
    world, samples = built(build, root)
    row = {"build": build, "source": source}
    if source == EXACT:
        pairs = zip(samples, exact_scores(samples), strict=True)
        return row | measured([replace(one, step_scores=given) for one, given in pairs])
    model = trained(world, source, StageCache(root))
    training = read_json(model.path / TRAINING)
    solutions, given = labelled(world, source)
    facts = {"rows": len(solutions)} if source.startswith("outcome") else label_facts(solutions, given)
    row |= facts | {"updates": training["updates"], "kept_update": training["kept_update"]}
    return row | measured(scored(samples, load_prm(model.path))) | {"train_seconds": model.seconds}


def searched(build: int, root: str) -> dict:
    """Greedy search, beam search and DVTS on held-out problems, each beside best-of-n at its tokens."""
    world = build_world(ToyWorldSettings(seed=build, **WORLD), root, with_prm=False)
    sampler = labels.policy_sampler(world.policy_path, world.settings.max_completion_length)
    prompts, solutions = (list(world.eval_dataset[name])[-SEARCHED:] for name in ("prompt", "solution"))
    rows = compare_guided(
        sampler,
        load_prm(trained(world, "consensus hard", StageCache(root)).path),
        ExactMatchVerifier(),
        prompts,
        solutions,
        lambda text: len(sampler.tokenizer(text).input_ids),
        SearchSettings(),
        n=WIDTH,
        seed=build,
    )
    return {"build": build, "source": SEARCH, "methods": rows}


def read_results() -> dict[tuple[int, str], dict]:
    """What has been measured so far, by build and source."""
    return {(row["build"], row["source"]): row for row in read_json_lines(RESULTS)} if RESULTS.is_file() else {}


def run(arguments: argparse.Namespace) -> None:
    """Every cell that is not there yet, one line each."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    wanted = arguments.sources or [source for part in arguments.parts for source in PARTS[part]]
    for build, source in product(arguments.builds, wanted):
        if (build, source) in read_results():
            continue
        began, spent = time.perf_counter(), time.process_time()
        row = searched(build, arguments.cache) if source == SEARCH else cell(build, source, arguments.cache)
        row["cpu_seconds"] = round(time.process_time() - spent, 1)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"build {build}, {source}: {time.perf_counter() - began:.0f} s, F1 {row.get('f1', 0.0):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["run", "show", "page"])
    parser.add_argument("--builds", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sources", nargs="+", choices=[s for part in PARTS.values() for s in part], help="not parts")
    parser.add_argument("--cache", default="runs/cache", help="where built stages are kept (%(default)s)")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments)
    elif arguments.what == "show":
        print(tables(read_results()))
    else:
        DOCS.write_text(page(read_results(), read_json_lines(PROBES) if PROBES.is_file() else []))
        print(DOCS)


if __name__ == "__main__":
    main()
