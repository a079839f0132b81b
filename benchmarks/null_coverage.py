"""How often the table's 95 % interval covers 0 when both cells are the same method: real runs, resampled ablations.

    python benchmarks/null_coverage.py             # first: rlhf-prm ablate --config recipes/configs/ablation_null.yaml
    python benchmarks/null_coverage.py --write     # also benchmarks/results/null_coverage_<hardware>.json

From a method's finished runs, 2n different ones are drawn, put into two cells of n and paired: an ablation in which
there is no difference to find. The interval is the table's own (``difference_interval``).

The resampled ablations share their runs, so they are not independent: the binomial interval holds for these runs only
and is too narrow for others. "Without any one run" shows how much single runs matter. All runs are of one
build; in a real table each pair has its own build, whose noise is part of the differences too. And
the difference of two runs of one method is symmetric, so the interval is not tested on the skew of real comparisons.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from methods import hardware

from rlhf_prm.ablation.config import AblationConfig, load_config
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.table import value_at
from rlhf_prm.statistics import difference_interval, share_interval

CONFIG = "recipes/configs/ablation_null.yaml"
RESULTS = Path(__file__).parent / "results"
PAIRS = (5, 8, 12)


@dataclass(frozen=True)
class Coverage:
    """Share of ``ablations`` of ``pairs`` pairs whose interval covers 0.

    ``binomial``: 95 % interval of that share as if the ablations were independent. ``without_one``: the lowest and the
    highest share among the ablations that lack one run; None where every ablation has all runs.
    """

    pairs: int
    ablations: int
    coverage: float
    binomial: tuple[float, float]
    without_one: tuple[float, float] | None
    mean_half_width: float


def null_coverage(values: Sequence[float], pairs: int, ablations: int, seed: int = 0) -> Coverage:
    """Draw null ablations from the final values of one method's runs."""
    draw, runs = random.Random(seed), range(len(values))
    drawn = [draw.sample(runs, 2 * pairs) for _ in range(ablations)]
    intervals = [
        difference_interval([values[a] - values[b] for a, b in zip(d[:pairs], d[pairs:], strict=True)]) for d in drawn
    ]
    covered = [interval.low <= 0.0 <= interval.high for interval in intervals]
    without = [[hit for d, hit in zip(drawn, covered, strict=True) if run not in d] for run in runs]
    shares = [statistics.mean(hits) for hits in without if hits]
    return Coverage(
        pairs,
        ablations,
        statistics.mean(covered),
        tuple(share_interval(sum(covered), ablations)[1:]),
        (min(shares), max(shares)) if shares else None,
        statistics.mean((interval.high - interval.low) / 2 for interval in intervals),
    )


def finished_values(config: AblationConfig) -> dict[tuple[str, str], list[float]]:
    """(method, metric) → the final value of every finished run."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in cell_runs(config):
        if run.state == "done":
            summary = json.loads((run.folder / "summary.json").read_text())
            for metric in config.metrics:
                found.setdefault((dict(run.cell.labels)["method"], metric), []).append(value_at(summary, metric))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--ablations", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/null_coverage_<hardware>.json")
    args = parser.parse_args()
    config, results = load_config(args.config), []
    for (method, metric), values in finished_values(config).items():
        spread = statistics.stdev(values)
        print(f"{method}, {metric}: {len(values)} runs, {statistics.mean(values):.3f}, standard deviation {spread:.3f}")
        covers = [null_coverage(values, n, args.ablations) for n in PAIRS if 2 * n <= len(values)]
        for c in covers:
            without = "" if c.without_one is None else f", without any one run {_percent(c.without_one)}"
            print(
                f"  {c.pairs:2} pairs: {100 * c.coverage:.1f} % of {c.ablations} cover 0 "
                f"(binomial {_percent(c.binomial)}{without}); half width {c.mean_half_width:.3f}"
            )
        results.append({"method": method, "metric": metric, "runs": values, "coverage": [asdict(c) for c in covers]})
    if args.write:
        origin = {
            "date": str(date.today()),
            "hardware": hardware() | {"cores": os.cpu_count()},
            "config": config.fixed,
            "budget": config.budget,
        }
        name = re.sub(r"[^a-z0-9]+", "-", str(origin["hardware"]["cpu"]).lower()).strip("-")
        (RESULTS / f"null_coverage_{name}.json").write_text(json.dumps(origin | {"results": results}, indent=1) + "\n")


def _percent(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
