"""What do the audit's lines say of PRMs that paid in reinforcement learning, and of those that did not?

    python benchmarks/audit_validation.py measure --builds 23 24 28 29     # about 6 CPU-seconds for each pair
    python benchmarks/audit_validation.py show                             # the table, and where limits would lie

Every pair of a toy world and a scorer that ``benchmarks/dense_rewards.py`` has trained on is audited on the starting
policy's rollouts. It paid where training on it gained more than two standard errors over outcome-only. A line's limits
follow: with care where 5 % of the pairs that paid lie beyond, unsafe where none does. A line whose values do not rank
the gains can be no more than with care. Finished pairs are kept in ``benchmarks/results/audit_validation.jsonl``.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from cells import one_quiet_thread, rows_of
from dense_rewards import RESULTS as RUNS, pairs_with_cells, scorer_of, world_of

from rlhf_prm.evaluation.audit import AuditSettings, audit
from rlhf_prm.evaluation.audit.lines import RULES, AuditRule
from rlhf_prm.evaluation.samples import scored
from rlhf_prm.statistics import rank_correlation
from rlhf_prm.toyworld.prm_check import TEXTS, checked_samples

RESULTS = Path(__file__).parent / "results" / "audit_validation.jsonl"
PROBLEMS, SAMPLES, REWRITTEN = 200, 8, 30
RANKS = 0.3  # a line ranks the gains if |Spearman| is at least that
OF_THE_PAPER = ("minimum at the last step", "last beats product and min")  # their limits are not fitted
Pair = dict[str, Any]


def audited(cell: dict[str, Any], cache: str) -> dict[str, dict[str, Any]]:
    """The audit's lines of the scorer of a run, before that run: name → value and verdict."""
    world = world_of(cell, cache)
    scorer = scorer_of(cell, world)
    samples = scored(checked_samples(world, PROBLEMS, SAMPLES), scorer)
    found = audit(scorer, samples, AuditSettings(n=SAMPLES, probe_problems=REWRITTEN, texts=TEXTS))
    return {line.name: {"value": line.value, "verdict": line.verdict} for line in found.lines}


def measure(builds: Sequence[int], runs: Path, results: Path, cache: str) -> None:
    """Every pair of these builds that is not there yet."""
    done = {_key(row) for row in rows_of(results)}
    for pair, cell in pairs_with_cells(rows_of(runs)):
        if pair["build"] in builds and _key(pair) not in done:
            row = {name: pair[name] for name in ("world", "build", "prm", "gain", "gain_se")}
            with results.open("a") as file:
                file.write(json.dumps(row | {"lines": audited(cell, cache)}) + "\n")


def _key(pair: Pair) -> tuple[str, int, str]:
    return pair["world"], pair["build"], pair["prm"]


def split(rows: Sequence[Pair], name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """A line's values among the pairs that paid and among the others, and how it ranks the gains (Spearman)."""
    found = [(row["lines"][name]["value"], row["gain"], paid(row)) for row in rows if name in row["lines"]]
    found = [one for one in found if math.isfinite(one[0])]
    rho = rank_correlation([value for value, *_ in found], [gain for _, gain, _ in found])
    values = [np.array([value for value, _, pays in found if pays is wanted]) for wanted in (True, False)]
    return values[0], values[1], rho


def paid(row: Pair) -> bool:
    """Whether training on it gained more than two standard errors."""
    return row["gain"] > 2 * row["gain_se"]


def limits(rows: Sequence[Pair], name: str) -> AuditRule:
    """Where 5 % of the pairs that paid lie beyond, and where none does; ±∞ if the line does not rank the gains."""
    higher = RULES[name].higher_is_worse
    values, _, rho = split(rows, name)
    care = float(np.percentile(values, 95 if higher else 5))
    worst = float(values.max() if higher else values.min())
    ranks = rho <= -RANKS if higher else rho >= RANKS
    return AuditRule(care, worst if ranks else math.inf if higher else -math.inf, "", higher)


def table(rows: Sequence[Pair]) -> str:
    """For each line: how it ranks the gains, its values among the pairs that paid and the others, and its limits."""
    out = ["| line | ranks the gains | paid: 5, 50, 95 % | did not: 5, 50, 95 % | limits found | limits taken |"]
    out.append("|---|---|---|---|---|---|")
    for name in RULES:
        with_gain, without, rho = split(rows, name)
        found = "the paper's" if name in OF_THE_PAPER else _limits(limits(rows, name))
        cells = [name, f"{rho:+.2f}", _spread(with_gain), _spread(without), found, _limits(RULES[name])]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def verdicts(rows: Sequence[Pair], rules: Callable[[Pair], dict[str, AuditRule]]) -> str:
    """The audit's verdict, its worst line, for pairs that paid and others.

    ``rules`` are those a pair is held against; lines of the paper keep the verdict that the audit gave them.
    """
    out = ["| | unsafe | with care | ok |", "|---|---|---|---|"]
    for title, wanted in (("paid", True), ("did not", False)):
        worst = []
        for row in rows:
            if paid(row) is wanted:
                held = rules(row)
                found = {
                    line["verdict"] if name in OF_THE_PAPER else held[name].verdict(line["value"])
                    for name, line in row["lines"].items()
                }
                worst.append(next(one for one in ("unsafe", "with care", "ok") if one in found))
        counts = [str(worst.count(one)) for one in ("unsafe", "with care", "ok")]
        out.append(f"| {title} ({len(worst)}) | " + " | ".join(counts) + " |")
    return "\n".join(out)


def without_its_build(rows: Sequence[Pair]) -> Callable[[Pair], dict[str, AuditRule]]:
    """For a pair, the limits that the pairs of all other builds give."""
    fitted = {
        build: {
            name: limits([row for row in rows if row["build"] != build], name)
            for name in RULES
            if name not in OF_THE_PAPER
        }
        for build in {row["build"] for row in rows}
    }
    return lambda row: fitted[row["build"]]


def _limits(rule: AuditRule) -> str:
    return f"{rule.care:.2f}" + (f", {rule.unsafe:.2f}" if math.isfinite(rule.unsafe) else "")


def _spread(values: np.ndarray) -> str:
    return ", ".join(f"{value:.3f}" for value in np.percentile(values, [5, 50, 95])) if len(values) else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "show"])
    parser.add_argument("--builds", type=int, nargs="+", default=[23, 24, 28, 29])
    parser.add_argument("--runs", type=Path, default=RUNS, help="what benchmarks/dense_rewards.py has written")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", default="runs/cache", help="folder of the built worlds")
    args = parser.parse_args()
    one_quiet_thread()
    if args.what == "measure":
        measure(args.builds, args.runs, args.results, args.cache)
    else:
        rows = rows_of(args.results)
        print(f"{len(rows)} pairs\n\n{table(rows)}\n\nthe limits taken\n{verdicts(rows, lambda row: RULES)}\n")
        print(f"limits from the other builds\n{verdicts(rows, without_its_build(rows))}")


if __name__ == "__main__":
    main()
