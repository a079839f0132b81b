"""How far each label source's PRM is from the gold PRM and from exact labels, in every toy world and build.

    python benchmarks/prm_labels.py --worlds plain long --builds 10 11

Each PRM is trained on all solutions that its source labels, until its first-error F1 on rows held out from the same
source stops rising, and measured on held-out problems with exact labels. Every cell is added to
``benchmarks/results/prm_labels.json`` when it is done; cells that are there are not done again (unless
``--redo``), so a run may be stopped and continued at any time. About a CPU-minute a cell in the plain world, two in
the long one. The table goes to the screen.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from rlhf_prm.evaluation.chance import chance_f1
from rlhf_prm.evaluation.processbench import processbench_metrics
from rlhf_prm.evaluation.samples import SampledProblem, scored
from rlhf_prm.files import read_json_lines
from rlhf_prm.preflight.within_groups import auroc_within
from rlhf_prm.prm import load_prm
from rlhf_prm.statistics import auroc, first_error, predicted_first_error
from rlhf_prm.toyworld.checker import step_labels
from rlhf_prm.toyworld.label_stages import ROWS
from rlhf_prm.toyworld.prm_check import checked_samples
from rlhf_prm.toyworld.reward_model import TRAINING
from rlhf_prm.toyworld.settings import ToyWorldSettings
from rlhf_prm.toyworld.world import ToyWorld, build_world

WORLDS = {"plain": {}, "filler": {"filler": True}, "long": {"long_chains": True}}
SOURCES = {
    "mc": {"label_source": "mc"},
    "judge": {"label_source": "judge"},
    "judge, 4 votes": {"label_source": "judge", "judge_votes": 4},
    "consensus": {"label_source": "consensus"},
    "consensus, 4 votes": {"label_source": "consensus", "judge_votes": 4},
    "gold": {"label_source": "gold"},
}
EXACT = "exact labels"  # no PRM: the checker's own labels as step scores
PROBLEMS, SAMPLES = 250, 8
RESULTS = Path(__file__).parent / "results" / "prm_labels.json"
COLUMNS = {
    "label_accuracy": "label accuracy", "rows": "rows", "f1": "first-error F1", "chance_f1": "blind guess",
    "auroc": "step AUROC", "group_auroc": "AUROC within groups", "own_f1": "F1 by its own labels",
    "kept_update": "update kept", "updates": "updates", "prm_seconds": "seconds",
}  # fmt: skip


def measured(world: ToyWorld) -> dict[str, float]:
    """One PRM: its labels, its training, and its scores against exact labels."""
    samples = scored(checked_samples(world, PROBLEMS, SAMPLES), load_prm(world.prm_path))
    labelled = read_json_lines(world.stages["labels"].path / ROWS)
    hits = [
        first_error(row["labels"]) == first_error(step_labels(row["prompt"], row["completions"])) for row in labelled
    ]
    training = json.loads((world.prm_path / TRAINING).read_text())
    own = {one["update"]: one["f1"] for one in training["evaluations"]}
    return {
        "label_accuracy": float(np.mean(hits)),
        "rows": len(labelled),
        **quality(samples),
        "own_f1": own[training["kept_update"]],
        "kept_update": training["kept_update"],
        "updates": training["updates"],
        "prm_seconds": world.seconds["prm"],
    }


def exact_scores(samples: Sequence[SampledProblem]) -> list[list[list[float]]]:
    """1 for every step before a solution's first error, 0 from it on."""
    return [
        [
            [float(error < 0 or k < error) for k in range(len(steps))]
            for steps, error in zip(one.steps, one.first_errors, strict=True)
        ]
        for one in samples
    ]


def quality(samples: Sequence[SampledProblem]) -> dict[str, float]:
    """F1, step AUROC up to the first error, and AUROC of the lowest step score against the answer within groups."""
    scores = [row for one in samples for row in one.step_scores]
    truth = [error for one in samples for error in one.first_errors]
    points = [
        (score, k < error or error < 0)
        for row, error in zip(scores, truth, strict=True)
        for k, score in enumerate(row[: error + 1] if error >= 0 else row)
    ]
    return {
        **processbench_metrics([predicted_first_error(row) for row in scores], truth),
        "chance_f1": chance_f1(truth),
        "auroc": auroc([score for score, _ in points], [right for _, right in points]),
        "group_auroc": group_auroc(samples),
    }


def group_auroc(samples: Sequence[SampledProblem]) -> float:
    """P(lowest score of a right answer > that of a wrong one to the same problem), ties ½, over all such pairs."""
    groups = [([min(row) for row in one.step_scores], one.correct) for one in samples]
    found = auroc_within(groups).value
    return float("nan") if found is None else found


def ceiling(world: ToyWorld) -> dict[str, float]:
    """The same of the checker's own labels."""
    samples = checked_samples(world, PROBLEMS, SAMPLES)
    pairs = zip(samples, exact_scores(samples), strict=True)
    return {"label_accuracy": 1.0, **quality([replace(one, step_scores=scores) for one, scores in pairs])}


def read_results() -> dict:
    """What has been measured so far: ``rows`` by "world/build/source"."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"builds": [], "rows": {}}


def add_result(key: str, row: dict) -> None:
    """Results are added one by one, so several processes may work on different cells."""
    with FileLock(f"{RESULTS}.lock"):
        results = read_results()
        results["machine"] = f"{platform.machine()}, {os.cpu_count()} cores shared with other work"
        results["torch"] = torch.__version__
        results["rows"][key] = row
        results["builds"] = sorted({int(one.split("/")[1]) for one in results["rows"]})
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def table(rows: dict[str, dict]) -> str:
    """One line per world and source: the means over its builds; F1 also as the distance to the gold PRM's."""
    lines = ["| world | labels | builds | " + " | ".join(COLUMNS.values()) + " | F1 − gold's |"]
    lines.append("|---|---|---|" + "---|" * (len(COLUMNS) + 1))
    for world, source in product(WORLDS, [*SOURCES, EXACT]):
        cells = {key.split("/")[1]: row for key, row in rows.items() if _is(key, world, source)}
        if not cells:
            continue
        gold = {key.split("/")[1]: row["f1"] for key, row in rows.items() if _is(key, world, "gold")}
        gaps = [row["f1"] - gold[build] for build, row in cells.items() if build in gold]
        means = [_mean([row[name] for row in cells.values() if name in row], name) for name in COLUMNS]
        builds = ", ".join(sorted(cells, key=int))
        lines.append(f"| {world} | {source} | {builds} | " + " | ".join(means) + f" | {_mean(gaps, 'f1')} |")
    return "\n".join(lines)


def _is(key: str, world: str, source: str) -> bool:
    its_world, _, its_source = key.split("/")
    return (its_world, its_source) == (world, source)


def _mean(values: list[float], name: str) -> str:
    if not values:
        return "–"
    digits = 0 if name in ("rows", "kept_update", "updates", "prm_seconds") else 3
    return f"{np.mean(values):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--builds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--sources", nargs="+", choices=[*SOURCES, EXACT], default=[*SOURCES, EXACT])
    parser.add_argument("--redo", action="store_true", help="measure the named cells again")
    parser.add_argument("--cache", default="runs/cache", help="where built stages are kept (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for build, world, source in product(arguments.builds, arguments.worlds, arguments.sources):
        key = f"{world}/{build}/{source}"
        if key in read_results()["rows"] and not arguments.redo:
            continue
        start = time.perf_counter()
        settings = ToyWorldSettings(seed=build, **WORLDS[world], **SOURCES.get(source, SOURCES["gold"]))
        built = build_world(settings, arguments.cache)
        add_result(key, ceiling(built) if source == EXACT else measured(built))
        print(f"{key}: {time.perf_counter() - start:.0f} s, F1 {read_results()['rows'][key]['f1']:.3f}", flush=True)
    print(table(read_results()["rows"]))


if __name__ == "__main__":
    main()
