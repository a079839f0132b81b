"""Does credit for turns help a policy that calls tools? The tool world: a calculator at a price, a sparse outcome.

    python benchmarks/turns.py tuning --builds 100 101               # outcome-only: learning rate × prompts per update
    python benchmarks/turns.py contenders --builds 0 1 2 3 4 5 6 7   # start, outcome-only, credit for turns, ceiling
    python benchmarks/turns.py show                                  # the tables of what is there

A cell is one training run: 15 seconds on one core, and a minute more for a new world. Finished ones are kept in
``benchmarks/results/turns.jsonl`` and not run again. Several calls may share the work: each claims a cell by a lock.
``rlhf_prm.toyworld.tool_grpo`` trains.
"""

import argparse
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from cells import Cell, rows_of, work
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_prm.statistics import difference_interval, difference_p_value, holm_adjusted
from rlhf_prm.toyworld.quick_grpo import Regime
from rlhf_prm.toyworld.tool_grpo import tool_grpo
from rlhf_prm.toyworld.tool_world import ToolWorldSettings, build_tool_world

RESULTS = Path(__file__).parent / "results" / "turns.jsonl"
BUILDS = tuple(range(8))
# The two that are best for outcome-only: on the tuning builds the second, on the others the first, which is calmer.
REGIMES: tuple[dict[str, Any], ...] = (
    {"learning_rate": 6e-4, "max_steps": 30, "prompts": 8},
    {"learning_rate": 1.2e-3, "max_steps": 30, "prompts": 8},
)
# Learning rate, prompts per update, updates: always as many rollouts.
TUNED = ((3e-4, 8, 30), (6e-4, 8, 30), (1.2e-3, 8, 30), (2.4e-3, 8, 30), (1.2e-3, 16, 15))
BASE, START = "outcome-only", "before training"
# Name → who scores turns, the method, its keywords.
CONTENDERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    BASE: ("none", "outcome", {}),
    "turn credit: mt_grpo": ("environment", "mt_grpo", {"neutral": 0.5}),
    "turn credit: gtpo": ("environment", "gtpo", {"neutral": 0.5, "process_weight": 0.5, "baseline": "return"}),
    "gigpo": ("none", "gigpo", {"mode": "mean_std_norm"}),
    "gigpo, not scaled": ("none", "gigpo", {"mode": "mean_norm"}),
    "trusted, the environment's scores": ("environment", "trusted", {}),
    "ceiling: trusted, exact scores": ("oracle", "trusted", {}),
    "ceiling: mt_grpo, exact scores": ("oracle", "mt_grpo", {"neutral": 0.5}),
}
METRICS = ("accuracy", "outcome")
COLUMNS = {
    "accuracy": "accuracy",
    "process_accuracy": "all right",
    "outcome": "paid",
    "calls": "calls",
    "useful": "useful",
}


def contenders(builds: list[int]) -> Iterator[Cell]:
    """Every contender in every build and regime."""
    for build in builds:
        for regime in REGIMES:
            for name in (START, *CONTENDERS):
                yield {"part": "contenders", "build": build, "name": name, "regime": regime}


def tuning(builds: list[int]) -> Iterator[Cell]:
    """Outcome-only at several learning rates and sizes of an update: the baseline at its best."""
    for build in builds:
        yield {"part": "tuning", "build": build, "name": START, "regime": {}}
        for rate, prompts, updates in TUNED:
            regime = {"learning_rate": rate, "max_steps": updates, "prompts": prompts}
            yield {"part": "tuning", "build": build, "name": BASE, "regime": regime}


PARTS = {"contenders": contenders, "tuning": tuning}


def run(one: Cell, cache: str) -> dict[str, Any]:
    """Build the world, train, and measure."""
    world = build_tool_world(ToolWorldSettings(seed=one["build"]), cache)
    if one["name"] == START:
        tokenizer = AutoTokenizer.from_pretrained(world.policy_path)
        return world.evaluate(AutoModelForCausalLM.from_pretrained(world.policy_path, dtype=torch.float32), tokenizer)
    scores, method, keywords = CONTENDERS[one["name"]]
    return tool_grpo(world, scores, method, keywords, Regime(**one["regime"]))


def told(result: dict[str, Any]) -> str:
    """A result in a few words."""
    return f"accuracy {result['accuracy']:.3f}, calls {result['calls']:.2f}"


def table(rows: list[dict[str, Any]], part: str) -> str:
    """Per contender and regime against outcome-only of the same builds and regime, p Holm-adjusted within the part."""
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["cell"]["part"] == part:
            runs[row["cell"]["name"], json.dumps(row["cell"]["regime"])][row["cell"]["build"]] = row
    compared = {}
    for (name, regime), by_build in runs.items():
        base = runs.get((BASE, regime), {})
        gains = {m: [by_build[b][m] - base[b][m] for b in sorted(by_build) if b in base] for m in METRICS}
        if name not in (BASE, START) and len(gains["accuracy"]) > 1:
            compared[name, regime] = gains
    adjusted = holm_adjusted([difference_p_value(gains["accuracy"]) for gains in compared.values()])
    p_of = dict(zip(compared, adjusted, strict=True))
    titles = ("contender", *REGIMES[0], "builds", *COLUMNS.values(), "gain", "gain, paid", "builds above", "p")
    out = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for key, by_build in runs.items():
        found, regime = list(by_build.values()), json.loads(key[1])
        cells = [key[0], *(str(regime.get(name, "")) for name in REGIMES[0]), str(len(found))]
        cells += [f"{_mean([row[metric] for row in found]):.3f}" for metric in COLUMNS]
        out.append("| " + " | ".join([*cells, *_against_base(compared.get(key), p_of.get(key))]) + " |")
    return "\n".join(out)


def _against_base(gains: dict[str, list[float]] | None, p: float | None) -> list[str]:
    """Gain in accuracy and in what is paid, each with its interval, in how many builds accuracy gained, and p."""
    if gains is None:
        return [""] * 4
    intervals = [difference_interval(gains[metric]) for metric in METRICS]
    above = f"{sum(gain > 0 for gain in gains['accuracy'])} of {len(gains['accuracy'])}"
    return [*(f"{i.mean:+.3f} ({i.low:+.3f} to {i.high:+.3f})" for i in intervals), above, f"{p:.3f}"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*PARTS, "show"])
    parser.add_argument("--builds", type=int, nargs="+", default=list(BUILDS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", default="runs/cache", help="where worlds are kept (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    if args.what == "show":
        for part in PARTS:
            print(f"## {part}\n\n{table(rows_of(args.results), part)}\n")
        return
    args.results.parent.mkdir(parents=True, exist_ok=True)
    cells = PARTS[args.what](args.builds)
    work(cells, partial(run, cache=args.cache), args.results, Path(args.cache) / ".turns", told)


if __name__ == "__main__":
    main()
