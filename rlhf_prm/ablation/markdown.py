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


def markdown(table: Table) -> str:
    """All metrics and groups, the warnings first and the failures last."""
    lines = [f"> {warning}" for warning in table.warnings]
    for metric in table.config.metrics:
        for group, rows in table.groups.items():
            lines += ["", f"**{metric}**" + (f", {group}" if group != "all" else ""), ""]
            names = header(table)
            lines += ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
            lines += ["| " + " | ".join(cells(table, row, metric)) + " |" for row in rows]
    if table.failed:
        lines += ["", "Failed:", ""]
        lines += [f"- {told['cell']} seed {told['seed']}: {last_line(told)}" for told in table.failed]
    return "\n".join(lines).strip() + "\n"


def last_line(told: dict) -> str:
    """What a failed run said last."""
    said = [line.strip() for line in told["log"] if line.strip()]
    return said[-1] if said else f"exit status {told['status']}"


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.3f}"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"
