"""The table of an ablation as Markdown, and its rows as text for the page."""

import math

from rlhf_prm.ablation.table import CellRow, Table


def header(table: Table) -> list[str]:
    """Column names."""
    seeds = [f"seed {seed}" for seed in table.config.seeds]
    return ["cell", *seeds, "mean", "difference (95 % interval)", "wins", "p (Holm)", "updates", "tokens"]


def cells(table: Table, row: CellRow, metric: str) -> list[str]:
    """One row of text."""
    c = row.comparisons[metric]
    values = [_number(c.values.get(seed, math.nan)) for seed in table.config.seeds]
    spent = [_count(row.updates), _count(row.tokens)]
    if row.is_baseline:
        return [f"{row.label} (baseline)", *values, _number(c.mean.mean), "–", "–", "–", *spent]
    interval = f"{_signed(c.difference.mean)} ({_signed(c.difference.low)} to {_signed(c.difference.high)})"
    p_value = "< 0.01" if c.adjusted_p < 0.01 else _number(c.adjusted_p, 2)
    wins = f"{c.wins}/{len(c.differences)}"
    return [row.label, *values, _number(c.mean.mean), interval, wins, p_value, *spent]


def short_label(table: Table, row: CellRow) -> str:
    """The labels of the axes that differ within a group."""
    return ", ".join(label for axis, label in row.cell.labels if axis in table.config.compare_to)


def overview(table: Table) -> list[list[str]]:
    """Difference and wins in the main metric, a row per cell and a column per group; its header is the first row."""
    rows: dict[str, dict[str, str]] = {}
    for group, cell_rows in table.groups.items():
        for row in cell_rows:
            rows.setdefault(short_label(table, row), {})[group] = _overview_cell(row, table.config.metrics[0])
    groups = list(table.groups)
    return [
        ["cell", *groups],
        *([label, *(by_group.get(group, "") for group in groups)] for label, by_group in rows.items()),
    ]


def _overview_cell(row: CellRow, metric: str) -> str:
    c = row.comparisons[metric]
    if row.is_baseline:
        return f"{_number(c.mean.mean)} (baseline)"
    return f"{_signed(c.difference.mean)}, {c.wins}/{len(c.differences)}" + (" *" if c.adjusted_p < 0.05 else "")


def markdown(table: Table) -> str:
    """An overview where there are several groups, then all metrics and groups; warnings first, failures last."""
    lines = [f"> {warning}" for warning in table.warnings]
    if len(table.groups) > 1:
        lines += ["", f"**{table.config.metrics[0]}: mean difference, seeds won; * p (Holm) < 0.05**", ""]
        header_row, *rows = (f"| {' | '.join(cells)} |" for cells in overview(table))
        lines += [header_row, "|---" * (len(table.groups) + 1) + "|", *rows]
    for metric in table.config.metrics:
        for group, rows in table.groups.items():
            lines += ["", f"**{metric}**" + (f", {group}" if group != "all" else ""), ""]
            names = header(table)
            lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
            lines += ["| " + " | ".join(cells(table, row, metric)) + " |" for row in rows]
    if table.failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {run['cell']} seed {run['seed']}: {last_line(run)}" for run in table.failed]
    return "\n".join(lines).strip() + "\n"


def last_line(failed_run: dict) -> str:
    """The last line of a failed run's output."""
    said = [line.strip() for line in failed_run["log"] if line.strip()]
    return said[-1] if said else f"exit status {failed_run['status']}"


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"
