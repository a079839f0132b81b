"""When HackGuard fired in the runs of recipes/configs/ablation_collapses.yaml, and what acting on it was worth.

python benchmarks/hack_guard.py          (after rlhf-prm ablate --config recipes/configs/ablation_collapses.yaml)
"""

import json
import sys

from rlhf_prm.ablation.config import load_config
from rlhf_prm.ablation.launch import CellRun, cell_runs

CONFIG = "recipes/configs/ablation_collapses.yaml"


def alarms(run: CellRun) -> list[dict]:
    """The suspicions that the arbiter did not clear."""
    entries = [json.loads(line) for line in (run.folder / "hack_guard.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["verdict"] != "cleared"]


def before_halved(run: CellRun) -> str:
    """The first alarm, the held-out accuracy then, and whether it was above half of the accuracy at the start."""
    start = json.loads((run.folder / "summary.json").read_text())["accuracy"]["before"]
    found = alarms(run)
    if not found:
        return "no alarm"
    first = found[0]
    verdict = "in time" if first["accuracy"] > start / 2 else "too late"
    return f"update {first['step']} at {first['accuracy']:.3f} of {start:.3f}: {verdict}"


def after(run: CellRun) -> float:
    return json.loads((run.folder / "summary.json").read_text())["accuracy"]["after"]


def main() -> None:
    config = load_config(CONFIG)
    runs = {(run.cell.labels, run.seed): run for run in cell_runs(config) if run.state == "done"}
    cells = [cell.labels for cell in config.cells()]
    seeds = config.seeds
    print("| world | method | " + " | ".join(f"build {seed}" for seed in seeds) + " |")
    print("|---" * (len(seeds) + 2) + "|")
    for labels in cells:
        told = [runs.get((labels, seed)) for seed in seeds]
        row = [before_halved(run) if run else "not run" for run in told]
        print(f"| {labels[0][1]} | {labels[1][1]}: first alarm | " + " | ".join(row) + " |")
    print()
    print("| world | method, accuracy after | " + " | ".join(f"build {seed}" for seed in seeds) + " |")
    print("|---" * (len(seeds) + 2) + "|")
    for labels in cells:
        row = []
        for seed in seeds:
            run, other = runs.get((labels, seed)), runs.get(((labels[0], ("method", "outcome")), seed))
            row.append(f"{after(run):.3f} ({after(run) - after(other):+.3f})" if run and other else "not run")
        print(f"| {labels[0][1]} | {labels[1][1]} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    sys.exit(main())
