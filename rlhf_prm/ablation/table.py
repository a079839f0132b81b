"""The table of finished cells: paired by seed, with intervals, wins, and warnings about what is not significant."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_prm.ablation.config import AblationConfig, Cell
from rlhf_prm.ablation.launch import CellRun, failures
from rlhf_prm.files import read_json, read_json_lines
from rlhf_prm.statistics import Interval, difference_interval, difference_p_value, holm_adjusted, mean_interval

FEWEST_SEEDS = 5
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """One cell against its baseline cell, in one metric, over the seeds that both have finished."""

    values: dict[int, float]
    mean: Interval
    differences: dict[int, float]
    difference: Interval
    p_value: float = math.nan
    adjusted_p: float = math.nan

    @property
    def wins(self) -> int:
        """Seeds on which the cell is above its baseline."""
        return sum(value > 0 for value in self.differences.values())


@dataclass(frozen=True)
class CellRow:
    """A cell of the table: its comparisons by metric. ``is_baseline``: others are compared with it."""

    cell: Cell
    is_baseline: bool
    comparisons: dict[str, Comparison]
    tokens: float  # generated on average, NaN where the runs did not log it
    updates: float

    @property
    def label(self) -> str:
        """The labels of the axes that the comparison runs along."""
        return ", ".join(label for _, label in self.cell.labels)


@dataclass(frozen=True)
class Table:
    """All cells, in groups that share a baseline cell, with failures and with warnings in words."""

    config: AblationConfig
    groups: dict[str, list[CellRow]]
    failed: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """The table as JSON, without times, so that equal results give equal bytes."""
        groups = {name: [_row_json(row) for row in rows] for name, rows in self.groups.items()}
        content = {"metrics": self.config.metrics, "groups": groups, "failed": self.failed, "warnings": self.warnings}
        return json.dumps(content, indent=1) + "\n"


def build_table(config: AblationConfig, runs: Sequence[CellRun]) -> Table:
    """Read the finished runs' summaries and compare."""
    summaries: dict[Labels, dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        if run.state == "done":
            summary = read_json(run.folder / "summary.json")
            summaries[run.cell.labels][run.seed] = summary | {"spent": _spent(run.folder)}
    groups: dict[str, list[CellRow]] = defaultdict(list)
    for cell in config.cells():
        name = ", ".join(f"{axis} {label}" for axis, label in config.baseline(cell) if axis not in config.compare_to)
        groups[name or "all"].append(_row(config, cell, summaries))
    groups = {name: _adjusted(config, rows) for name, rows in groups.items()}
    failed = [
        {"cell": run.cell.name, "seed": run.seed, "status": failure["status"], "log": failure["log"][-5:]}
        for run, failure in failures(runs)
    ]
    return Table(config, groups, failed, _warnings(config, groups, runs))


def value_at(summary: Mapping[str, Any], path: str) -> float:
    """The number at a dotted path of a summary; NaN if there is none."""
    found: Any = summary
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else math.nan


def _spent(folder: Path) -> dict[str, float]:
    """Updates and generated tokens, from the end of metrics.jsonl."""
    spent = {"updates": math.nan, "generated_tokens": math.nan}
    for row in read_json_lines(folder / "metrics.jsonl", may_be_cut=True):
        spent["updates"] = row.get("step", spent["updates"])
        spent["generated_tokens"] = row.get("generated_tokens", spent["generated_tokens"])
    return spent


def _row(config: AblationConfig, cell: Cell, summaries: Mapping[Labels, Mapping[int, Any]]) -> CellRow:
    own, other = summaries.get(cell.labels, {}), summaries.get(config.baseline(cell), {})
    comparisons = {}
    for metric in config.metrics:
        values = {seed: value_at(summary, metric) for seed, summary in sorted(own.items())}
        differences = {
            seed: value - value_at(other[seed], metric)
            for seed, value in values.items()
            if seed in other and not math.isnan(value - value_at(other[seed], metric))
        }
        comparisons[metric] = Comparison(
            values,
            mean_interval(list(values.values())),
            differences,
            difference_interval(list(differences.values())),
            difference_p_value(list(differences.values())),
        )
    spent = [summary["spent"] for summary in own.values()]
    tokens, updates = (mean_interval([s[key] for s in spent]).mean for key in ("generated_tokens", "updates"))
    return CellRow(cell, config.baseline(cell) == cell.labels, comparisons, tokens, updates)


def _adjusted(config: AblationConfig, rows: list[CellRow]) -> list[CellRow]:
    """With p values adjusted for the number of cells that are compared in this group."""
    compared = [row for row in rows if not row.is_baseline]
    result = {row.cell.labels: dict(row.comparisons) for row in rows}
    for metric in config.metrics:
        p_values = holm_adjusted([row.comparisons[metric].p_value for row in compared])
        for row, p in zip(compared, p_values, strict=True):
            old = row.comparisons[metric]
            result[row.cell.labels][metric] = Comparison(
                old.values, old.mean, old.differences, old.difference, old.p_value, p
            )
    return [CellRow(row.cell, row.is_baseline, result[row.cell.labels], row.tokens, row.updates) for row in rows]


def _warnings(config: AblationConfig, groups: Mapping[str, list[CellRow]], runs: Sequence[CellRun]) -> list[str]:
    warnings = []
    compared = [row for rows in groups.values() for row in rows if not row.is_baseline]
    main = config.metrics[0]
    pairs = min((len(row.comparisons[main].differences) for row in compared), default=0)
    if pairs < FEWEST_SEEDS:
        warnings.append(
            f"Too few seeds to say: some cells have only {pairs} paired with their baseline. Under {FEWEST_SEEDS} an"
            " interval is wide and a win count means little."
        )
    if len(compared) > 1:
        warnings.append(
            f"{len(compared)} cells are compared in {len(groups)} groups: of that many 95 % intervals about"
            f" {0.05 * len(compared):.1f} leave 0 out by chance alone. p is adjusted within each group (Holm)."
        )
    states = [run.state for run in runs]
    for state, what in (("failed", "failed; they are listed"), ("open", "not finished yet")):
        if states.count(state):
            warnings.append(f"{states.count(state)} of {len(runs)} runs {what}.")
    return warnings


def _row_json(row: CellRow) -> dict[str, Any]:
    comparisons = {
        metric: {
            "values": c.values,
            "mean": _plain(c.mean.mean),
            "differences": c.differences,
            "difference": [_plain(value) for value in c.difference],
            "wins": c.wins,
            "p": _plain(c.p_value),
            "p_adjusted": _plain(c.adjusted_p),
        }
        for metric, c in row.comparisons.items()
    }
    spent = {"updates": _plain(row.updates), "generated_tokens": _plain(row.tokens)}
    return {"labels": dict(row.cell.labels), "baseline": row.is_baseline, "spent": spent, "metrics": comparisons}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
