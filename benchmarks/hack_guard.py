"""When HackGuard fired in the runs of recipes/configs/ablation_collapses.yaml, and what acting on it was worth.

    rlhf-prm ablate --config recipes/configs/ablation_collapses.yaml
    python benchmarks/hack_guard.py [--config FILE] [--results benchmarks/results/hack_guard.json]

Prints a Markdown table per world, a column per build, and writes the same as JSON.
"""

import argparse
import json
from pathlib import Path

from methods import hardware

from rlhf_prm.ablation.config import load_config
from rlhf_prm.ablation.launch import CellRun, cell_runs
from rlhf_prm.files import read_json_lines
from rlhf_prm.statistics import mean_interval

MARGIN = 0.02  # how far below outcome-only a run may end that was caught and rolled back


def alarms(run: CellRun) -> list[dict]:
    """The entries of the guard's log that were not cleared."""
    entries = read_json_lines(run.folder / "hack_guard.jsonl")
    return [entry for entry in entries if entry["verdict"] != "cleared"]


def accuracy(run: CellRun) -> dict[str, float]:
    return json.loads((run.folder / "summary.json").read_text())["accuracy"]


def facts(outcome: CellRun, collapse: CellRun, rollback: CellRun) -> dict:
    """What one build shows."""
    start, found, false_alarms = accuracy(collapse)["before"], alarms(collapse), alarms(outcome)
    first = found[0] if found else None
    return {
        "start": start,
        "first_alarm": first and {key: first[key] for key in ("step", "accuracy", "verdict", "detector")},
        "in_time": bool(first and first["accuracy"] > start / 2),
        "collapse_after": accuracy(collapse)["after"],
        "outcome_alarms": [alarm["step"] for alarm in false_alarms],
        "outcome_after": accuracy(outcome)["after"],
        "rollback_after": accuracy(rollback)["after"],
        "rollbacks": [alarm["step"] for alarm in alarms(rollback) if alarm["action"] == "rollback"],
        "difference": accuracy(rollback)["after"] - accuracy(outcome)["after"],
    }


def table(builds: dict[int, dict]) -> str:
    """One world as Markdown."""
    rows = {
        "accuracy at the start": lambda f: f"{f['start']:.3f}",
        "first alarm: update, accuracy then": lambda f: (
            f"{f['first_alarm']['step']}, {f['first_alarm']['accuracy']:.3f}" if f["first_alarm"] else "none"
        ),
        "by": lambda f: f["first_alarm"]["detector"].replace("_", " ") if f["first_alarm"] else "–",
        "before accuracy had halved": lambda f: "yes" if f["in_time"] else "no",
        "only watched: accuracy at the end": lambda f: f"{f['collapse_after']:.3f}",
        "outcome-only: alarms at updates": lambda f: ", ".join(map(str, f["outcome_alarms"])) or "none",
        "outcome-only: accuracy at the end": lambda f: f"{f['outcome_after']:.3f}",
        "rolled back at updates": lambda f: ", ".join(map(str, f["rollbacks"])) or "never",
        "rolled back: accuracy at the end": lambda f: f"{f['rollback_after']:.3f}",
        "difference to outcome-only": lambda f: f"{f['difference']:+.3f}",
    }
    lines = ["| | " + " | ".join(f"build {seed}" for seed in builds) + " |", "|---" * (len(builds) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(show(f) for f in builds.values()) + " |" for name, show in rows.items()]
    return "\n".join([*lines, "", verdict(list(builds.values()))])


def verdict(builds: list[dict]) -> str:
    """The counts over the builds of one world."""
    mean, low, high = mean_interval([f["difference"] for f in builds])
    counts = [
        sum(f["in_time"] for f in builds),
        sum(bool(f["outcome_alarms"]) for f in builds),
        sum(f["difference"] >= -MARGIN for f in builds),
    ]
    in_time, alarmed, close = (f"{count} of {len(builds)}" for count in counts)
    return (
        f"In time: {in_time}. Outcome-only runs with an alarm: {alarmed}. Rolled back against outcome-only: "
        f"{mean:+.3f} ({low:+.3f} to {high:+.3f}), at most {MARGIN} below in {close}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="recipes/configs/ablation_collapses.yaml")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/hack_guard.json"))
    args = parser.parse_args()
    runs: dict[str, dict[int, dict[str, CellRun]]] = {}
    for run in cell_runs(load_config(args.config)):
        labels = dict(run.cell.labels)
        kind = labels["method"].removeprefix("filler_")
        if run.state == "done":
            runs.setdefault(labels["world"], {}).setdefault(run.seed, {})[kind] = run
    worlds = {
        world: {seed: facts(**kinds) for seed, kinds in sorted(builds.items()) if len(kinds) == 3}
        for world, builds in runs.items()
    }
    for world, builds in worlds.items():
        print(f"\n**The {world} world**\n\n{table(builds)}")
    args.results.write_text(json.dumps({"hardware": hardware(), "worlds": worlds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
