"""Four runs on a real language model: outcome-only, the default method, a runner-up, and the ceiling.

    python benchmarks/real_lm.py run --seeds 0 1 2        # hours on two cores; goes on where it was stopped
    python benchmarks/real_lm.py run --seeds 0 --only outcome ceiling
    python benchmarks/real_lm.py show                     # the table of what is there: every seed, and its cost

The cells are those of ``recipes/configs/ablation_word_problems.yaml``, each a run of ``recipes/grpo_prm.py`` in a
process of one thread. A finished cell is a line of ``benchmarks/results/real_lm.jsonl`` and is not run again; the world
of a seed is built by the first cell that needs it and kept under ``--root``.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rlhf_prm.ablation.config import load_config, merged
from rlhf_prm.ablation.launch import CellRun, run_cells
from rlhf_prm.files import read_json, read_json_lines, write_json_lines
from rlhf_prm.statistics import difference_interval
from rlhf_prm.wordproblems import SCALES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "real_lm.jsonl"
CONFIG = ROOT / "recipes" / "configs" / "ablation_word_problems.yaml"
BASELINE = "outcome"


def row_of(run: CellRun) -> dict[str, Any]:
    """What is kept of a finished cell."""
    summary = read_json(run.folder / "summary.json")
    training = sum(seconds for name, seconds in summary["seconds"].items() if name.startswith("train "))
    return {
        **{"method": dict(run.cell.labels)["method"], "seed": run.seed},
        **{name: summary[name] for name in ("accuracy", "process_accuracy", "eval_problems")},
        **{"updates": summary["settings"]["max_steps"], "training_seconds": round(training), "model": _model(summary)},
        **{"hardware": summary["versions"]["hardware"]},
    }


def _model(summary: dict[str, Any]) -> str:
    recipe = summary["settings"]["recipe"]
    return recipe["world_settings"].get("model", "smollm2") if isinstance(recipe, dict) else "smollm2"


def kept(rows: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, the newer one where a cell comes twice, in the order of seeds and methods."""
    cells = {(row["seed"], row["method"], row["model"], row["updates"]): row for row in (*rows, *new)}
    return [cells[key] for key in sorted(cells)]


def run(arguments: argparse.Namespace) -> None:
    """Trains what is missing, a seed after the other, and notes every cell that is done."""
    config = load_config(CONFIG)
    settings = {**SCALES[arguments.scale], **arguments.settings}
    fixed = {"world_settings": settings, "stage_cache": str(arguments.root / "cache")}
    methods = {name: point for name, point in config.grid["method"].items() if name in arguments.only}
    os.chdir(ROOT)
    for seed in arguments.seeds:
        cells = replace(
            config,
            fixed=merged(config.fixed, fixed),
            grid={"method": methods},
            compare_to={"method": next(iter(methods))},
            seeds=[seed],
            budget={"updates": arguments.updates},
            parallel=arguments.parallel,
            output_dir=str(arguments.root / "rl"),
        )
        done = [one for one in run_cells(cells, retry=arguments.retry) if one.state == "done"]
        before = read_json_lines(RESULTS) if RESULTS.exists() else []
        write_json_lines(RESULTS, kept(before, [row_of(one) for one in done]))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per cell, and per method the mean difference to outcome-only with its 95 % interval over seeds."""
    lines = ["| method | seed | accuracy | all steps right | training |", "|---|---|---|---|---|"]
    for row in rows:
        before_after = [
            f"{row[name]['before']:.3f} → {row[name]['after']:.3f}" for name in ("accuracy", "process_accuracy")
        ]
        lines.append(
            f"| `{row['method']}` | {row['seed']} | {' | '.join(before_after)} | {row['training_seconds']} s |"
        )
    by_method: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_method[row["method"]][row["seed"]] = row
    for method in sorted(set(by_method) - {BASELINE}):
        seeds = sorted(by_method[method].keys() & by_method[BASELINE].keys())
        if len(seeds) < 2:
            lines.append(
                f"\n`{method}` − `{BASELINE}`: {len(seeds)} pairs of seeds; at least 2 are needed for an interval"
            )
            continue
        for name in ("accuracy", "process_accuracy"):
            change = [
                by_method[method][seed][name]["after"] - by_method[BASELINE][seed][name]["after"] for seed in seeds
            ]
            found = difference_interval(change)
            ends = f"[{found.low:+.3f}, {found.high:+.3f}]"
            lines.append(
                f"\n`{method}` − `{BASELINE}`, {name}: {sum(change) / len(change):+.3f} {ends}, {len(seeds)} seeds"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what is missing")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--only", nargs="+", default=["outcome", "trusted", "clip_delta", "ceiling"])
    running.add_argument("--updates", type=int, default=40)
    running.add_argument("--scale", choices=SCALES, default="full")
    running.add_argument("--settings", type=json.loads, default={}, help="JSON of WordWorldSettings over the scale's")
    running.add_argument("--root", type=lambda text: Path(text).resolve(), default=Path("runs/real_lm").resolve())
    running.add_argument("--parallel", type=int, default=2)
    running.add_argument("--retry", action="store_true", help="run failed cells again")
    commands.add_parser("show", help="the table of what is there")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments)
    rows = read_json_lines(RESULTS) if RESULTS.exists() else []
    print(table(rows) if rows else f"nothing in {RESULTS} yet")


if __name__ == "__main__":
    main()
