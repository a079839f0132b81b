"""The page of an ablation: forest plots, tables, learning curves, failures, and rollouts of the best and the worst."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_prm.ablation import markdown
from rlhf_prm.ablation.launch import CellRun
from rlhf_prm.ablation.table import CellRow, Table
from rlhf_prm.report.charts import Subject, evaluated, lines
from rlhf_prm.report.drawing import ForestRow, forest_chart, line_chart
from rlhf_prm.report.gallery import gallery
from rlhf_prm.report.page import render
from rlhf_prm.report.plot_parts import Chart
from rlhf_prm.report.runs import Run, read_run
from rlhf_prm.report.sampling import Gathered, gather
from rlhf_prm.report.styles import styles_of

MOST_LINES, GALLERY_BUDGET = 7, 600_000
Part = dict[str, Any]


def write_page(table: Table, runs: Sequence[CellRun], out: Path) -> Path:
    """Write the page and return its path."""
    read = {(run.cell.labels, run.seed): read_run(run.folder) for run in runs if run.state == "done"}
    config = table.config
    lead = (
        f"{len(config.cells())} cells × {len(config.seeds)} seeds of {config.recipe}. A difference is a cell minus its"
        f" baseline ({', '.join(f'{axis} {label}' for axis, label in config.compare_to.items())}) on the same seed."
    )
    parts = [_part("caution", "Before you read on", " ".join(table.warnings))] if table.warnings else []
    if len(table.groups) > 1:
        names, *told = markdown.overview(table)
        note = f"{config.metrics[0]}: mean difference to the baseline, seeds won; * p (Holm) < 0.05."
        parts.append(_part("overview", "Overview", note, (), [{"title": "", "header": names, "rows": told}]))
    for number, (group, rows) in enumerate(table.groups.items()):
        title = "Result" if group == "all" else f"Result, {group}"
        charts = [_forest(table, rows, metric) for metric in config.metrics]
        charts += _curves(table, rows, read)
        tables = [
            {
                "title": metric,
                "header": markdown.header(table),
                "rows": [markdown.cells(table, row, metric) for row in rows],
            }
            for metric in config.metrics
        ]
        note = "Rings are seeds, the dot is their mean, the line its 95 % interval; grey where it holds 0."
        parts.append(_part(f"group{number}", title, note, [c for c in charts if c.rows], tables))
    if table.failed:
        rows = [
            [told["cell"], str(told["seed"]), str(told["status"]), markdown.last_line(told)] for told in table.failed
        ]
        header = ["cell", "seed", "exit status", "last line of its log"]
        parts.append(_part("failed", "Failed runs", "", (), [{"title": "", "header": header, "rows": rows}]))
    settings = [_settings(table, next(iter(read.values()), None))]
    return render(out, "Ablation", lead, parts, _galleries(table, read), settings)


def _part(id: str, title: str, note: str, charts: Sequence[Chart] = (), tables: Sequence[Part] = ()) -> Part:
    return {"id": id, "title": title, "note": note, "charts": list(charts), "tables": list(tables)}


def _forest(table: Table, rows: Sequence[CellRow], metric: str) -> Chart:
    shown = []
    for row in rows:
        if not row.is_baseline:
            c = row.comparisons[metric]
            shown.append(
                ForestRow(markdown.short_label(table, row), *c.difference, values=list(c.differences.values()))
            )
    told = "; ".join(f"{r.name} {r.mean:+.3f} from {r.low:+.3f} to {r.high:+.3f}" for r in shown)
    return forest_chart(shown, f"Difference in {metric}", "difference to the baseline", told or "nothing is finished")


def _curves(table: Table, rows: Sequence[CellRow], read: dict) -> list[Chart]:
    """Held-out accuracy over updates: the baseline, the best and the worst cells by the main metric."""
    main = table.config.metrics[0]
    compared = [row for row in rows if not row.is_baseline and not math.isnan(row.comparisons[main].difference.mean)]
    compared.sort(key=lambda row: -row.comparisons[main].difference.mean)
    if len(compared) > MOST_LINES:
        compared = [*compared[: MOST_LINES - 3], *compared[-3:]]
    chosen = [row for row in rows if row.is_baseline] + compared
    styles = styles_of((markdown.short_label(table, row), _method(row)) for row in chosen)
    subjects = [
        Subject(label, styles[label], read[row.cell.labels, seed], Gathered())
        for row in chosen
        for label in [markdown.short_label(table, row)]
        for seed in table.config.seeds
        if (row.cell.labels, seed) in read
    ]
    return [
        line_chart(lines(subjects, lambda s, name=name: evaluated(s.run, name)), title, y_label="share of problems")
        for name, title in (
            ("accuracy", "Held-out accuracy, mean over seeds"),
            ("process_accuracy", "Held-out solutions with every step right, mean over seeds"),
        )
    ]


def _method(row: CellRow) -> str:
    """The cell's method, which determines its colour; its label if the method is not an axis of the grid."""
    return str(row.cell.arguments.get("method", row.label))


def _galleries(table: Table, read: dict) -> list[Part]:
    """Rollouts of the first group's baseline, best and worst cell, on the first seed that all three have."""
    rows = next(iter(table.groups.values()))
    main = table.config.metrics[0]
    compared = [row for row in rows if not row.is_baseline and not math.isnan(row.comparisons[main].difference.mean)]
    compared.sort(key=lambda row: -row.comparisons[main].difference.mean)
    told = [(row, "baseline") for row in rows if row.is_baseline]
    told += [(row, word) for row, word in zip(compared[:1] + compared[1:][-1:], ("best", "worst"), strict=False)]
    galleries = []
    for row, word in reversed(told):
        run = next((read[row.cell.labels, s] for s in table.config.seeds if (row.cell.labels, s) in read), None)
        gathered = gather(run) if run else Gathered()
        if gathered.rollouts:
            galleries.append(gallery(f"{row.label} ({word}), seed {run.seed}", gathered, GALLERY_BUDGET))
    return galleries


def _settings(table: Table, run: Run | None) -> Part:
    config = table.config
    settings = [(name, str(getattr(config, name))) for name in config.__dataclass_fields__]
    versions = [(key, str(value)) for key, value in (run.summary.get("versions") or {}).items()] if run else []
    return {"title": "The ablation's configuration", "settings": settings, "versions": versions}
