"""The kinds of chart on our pages, drawn by Bokeh: lines with bands, bars, a histogram, paths, a forest, a scatter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bokeh.models import ColumnDataSource, GlyphRenderer, Range1d, Span
from bokeh.plotting import figure

from rlhf_prm.report.plot_parts import (
    ROW_HEIGHT,
    Chart,
    Numbers,
    Series,
    add_hover,
    add_legend,
    add_reading,
    add_segments,
    columns_of,
    empty_plot,
    finite,
    fit_to,
    name_rows,
    number,
    tags_of,
    with_interval,
)
from rlhf_prm.report.styles import look_of

MOST_DOTS = 40  # a line of more points is drawn without dots
MARKS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "star", "hex", "plus")


@dataclass(frozen=True)
class Limit:
    """A horizontal dashed line: the limit of a measure."""

    name: str
    y: float | int
    style: int | str


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: a mean, its interval, and the single values behind it."""

    name: str
    mean: float
    low: float
    high: float
    values: Numbers = ()


@dataclass(frozen=True)
class Point:
    """A dot of a scatter plot; NaN where the ends of an interval are not known."""

    name: str
    group: str
    x: float
    y: float
    x_low: float = math.nan
    x_high: float = math.nan
    y_low: float = math.nan
    y_high: float = math.nan


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str = "update",
    y_label: str = "",
    marks: Sequence[tuple[float | int, str]] = (),
    digits: int = 3,
    limits: Sequence[Limit] = (),
) -> Chart:
    """Lines over a shared x, with bands for intervals, dashed upright lines for ``marks`` (x, what happened) and lines
    across for ``limits``."""
    series = [s for s in series if finite(s.y)]
    limits = [limit for limit in limits if series and math.isfinite(limit.y)]
    xs = sorted({x for s in series for x in s.x})
    marks = [(x, what) for x, what in marks if xs and xs[0] <= x <= xs[-1]]
    header, rows = [x_label, *(s.name for s in series)], _table(xs, series, digits)
    plot = empty_plot(x_label, y_label)
    entries = [(s.name, _add_line(plot, s)) for s in series]
    entries += [(f"{limit.name}: {number(limit.y, digits)}", [_add_limit(plot, limit)]) for limit in limits]
    fit_to(plot, [renderer for _, renderers in entries for renderer in renderers])
    for x, _ in marks:
        plot.add_layout(Span(location=x, dimension="height", line_dash="dashed", tags=[["line_color", "--bad"]]))
    if xs:
        add_reading(plot, xs, columns_of(header, rows) + _happened(xs, marks))
    add_legend(plot, entries)
    told = "; ".join([_trend(series, digits), *(f"{limit.name} at {number(limit.y, digits)}" for limit in limits)])
    return Chart(title, told, plot, header, rows)


def histogram(
    edges: Numbers, series: Sequence[Series], title: str, x_label: str, y_label: str, description: str
) -> Chart:
    """Bars side by side in each bin: ``series[j].y[i]`` stands between ``edges[i]`` and ``edges[i + 1]``."""
    plot = empty_plot(x_label, y_label)
    entries = []
    for j, s in enumerate(series):
        lefts = [a + (b - a) * (0.08 + 0.84 * j / len(series)) for a, b in pairwise(edges)]
        rights = [left + (b - a) * 0.84 / len(series) for left, (a, b) in zip(lefts, pairwise(edges), strict=True)]
        bars = plot.quad(left=lefts, right=rights, bottom=0, top=list(s.y), line_color=None, tags=tags_of(s, "fill"))
        entries.append((s.name, [bars]))
    fit_to(plot, [bars for _, (bars,) in entries])
    header, bins = [x_label, *(s.name for s in series)], list(pairwise(edges))
    rows = [[f"{a:.2f} to {b:.2f}", *(number(s.y[i]) for s in series)] for i, (a, b) in enumerate(bins)]
    add_reading(plot, [(a + b) / 2 for a, b in bins], columns_of(header, rows))
    add_legend(plot, entries)
    return Chart(title, description, plot, header, rows)


def bar_chart(labels: Sequence[str], series: Sequence[Series], title: str, label_name: str, value_name: str) -> Chart:
    """Horizontal bars: ``series[j].y[i]`` beside ``labels[i]``, which then has room."""
    height = ROW_HEIGHT * 3 + len(labels) * (8 + 14 * len(series))
    plot = empty_plot(value_name, "", height)
    entries, header, thick = [], [label_name, *(s.name for s in series)], 0.84 / max(1, len(series))
    rows = [[label, *(number(s.y[i]) for s in series)] for i, label in enumerate(labels)]
    for j, s in enumerate(series):
        places = [i - 0.42 + (j + 0.5) * thick for i in range(len(labels))]
        bars = plot.hbar(y=places, right=list(s.y), height=0.9 * thick, line_color=None, tags=tags_of(s, "fill"))
        add_hover(plot, bars, [(label_name, labels), (s.name, [row[j + 1] for row in rows])])
        entries.append((s.name, [bars]))
    fit_to(plot, [bars for _, (bars,) in entries])
    name_rows(plot, labels)
    add_legend(plot, entries)
    return Chart(title, _trend(series, 3), plot, header, rows)


def path_chart(
    series: Sequence[Series], labels: Sequence[Sequence[str]], title: str, x_label: str, y_label: str, note: str
) -> Chart:
    """A path through the plane, growing darker with time; ``labels[j][i]`` names point i of series j."""
    plot, rows, entries = empty_plot(x_label, y_label), [], []
    for s, names in zip(series, labels, strict=True):
        last = len(s.x) - 1
        data = {
            "x": list(s.x),
            "y": list(s.y),
            "alpha": [0 if i == 0 else 0.25 + 0.75 * i / last for i in range(last + 1)],
            "size": [10 if i in (0, last) else 6 for i in range(last + 1)],
        }
        told = [[f"{s.name}, {name}", number(x), number(y)] for name, x, y in zip(names, s.x, s.y, strict=True)]
        source = ColumnDataSource(data)
        dash = look_of(s.style)[1]
        path = plot.line("x", "y", source=source, line_alpha=0.5, line_dash=dash, tags=tags_of(s, "line"))
        dots = plot.scatter("x", "y", source=source, size="size", fill_alpha="alpha", tags=tags_of(s, "fill", "line"))
        add_hover(plot, dots, columns_of(["path", x_label, y_label], told))
        entries.append((s.name, [path, dots]))
        rows += told
    add_legend(plot, entries)
    return Chart(title, note, plot, ["update", x_label, y_label], rows)


def forest_chart(rows: Sequence[ForestRow], title: str, x_label: str, note: str) -> Chart:
    """Means with intervals around a line at 0, single values as rings; the best row first."""
    shown = sorted((row for row in rows if math.isfinite(row.mean)), key=lambda row: -row.mean)
    # The values determine the scale: an interval over two seeds may be much wider than all values.
    reach = 2.5 * max([abs(v) for row in shown for v in finite([*row.values, row.mean])] or [1.0]) or 1.0
    ends = [0.0, *finite([v for row in shown for v in (row.low, row.high, row.mean, *row.values)])]
    low, high = max(min(ends), -reach), min(max(ends), reach)
    margin = 0.05 * (high - low) or 0.1
    plot = empty_plot(x_label, "", ROW_HEIGHT * (len(shown) + 3), x_range=Range1d(low - margin, high + margin))
    plot.add_layout(Span(location=0, dimension="height", level="underlay", tags=[["line_color", "--soft"]]))
    for i, row in enumerate(shown):
        style = "soft" if not (row.low > 0 or row.high < 0) else "good" if row.mean > 0 else "bad"
        _add_forest_row(plot, i, row, Series(row.name, [], [], style=style))
    name_rows(plot, [row.name for row in shown])
    table = [[row.name, number(row.mean), number(row.low), number(row.high)] for row in shown]
    return Chart(title, note, plot, ["cell", "mean", "from", "to"], table)


def scatter_chart(
    points: Sequence[Point], styles: dict[str, int], title: str, x_label: str, y_label: str, note: str
) -> Chart:
    """Dots with the intervals that are known, a colour and a mark for each group, and a line at y = 0."""
    plot = empty_plot(x_label, y_label)
    plot.add_layout(Span(location=0, dimension="width", level="underlay", tags=[["line_color", "--soft"]]))
    header = ["name", "group", x_label, y_label]
    rows = [
        [p.name, p.group, with_interval(p.x, p.x_low, p.x_high), with_interval(p.y, p.y_low, p.y_high)] for p in points
    ]
    entries = []
    for place, (group, style) in enumerate(styles.items()):
        members = [point for point in points if point.group == group]
        s = Series(group, [p.x for p in members], [p.y for p in members], style=style)
        upright = [(p.x, p.y_low, p.x, p.y_high) for p in members]
        across = [(p.x_low, p.y, p.x_high, p.y) for p in members]
        bars = add_segments(plot, s, [line for line in upright + across if all(map(math.isfinite, line))])
        mark = MARKS[place % len(MARKS)]
        dots = plot.scatter(s.x, s.y, marker=mark, size=9, tags=tags_of(s, "fill", "line"))
        add_hover(plot, dots, columns_of(header, [row for row in rows if row[1] == group]))
        entries.append((group, [bars, dots]))
    add_legend(plot, entries)
    return Chart(title, note, plot, header, rows)


def _add_line(plot: figure, s: Series) -> list[GlyphRenderer]:
    points = [(x, y) for x, y in zip(s.x, s.y, strict=True) if math.isfinite(y)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    parts = []
    if s.low:
        kept = [(x, a, b) for x, a, b in zip(s.x, s.low, s.high, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if len(kept) > 1:
            x, low, high = (list(column) for column in zip(*kept, strict=True))
            parts.append(plot.varea(x=x, y1=low, y2=high, fill_alpha=0.16, tags=tags_of(s, "fill")))
        elif kept:
            parts.append(add_segments(plot, s, [(x, a, x, b) for x, a, b in kept]))
    dash = look_of(s.style)[1]
    parts.append(plot.line(xs, ys, line_width=2.2, line_dash=dash, line_join="round", tags=tags_of(s, "line")))
    if len(points) <= MOST_DOTS:
        parts.append(plot.scatter(xs, ys, size=6, tags=tags_of(s, "fill", "line")))
    return parts


def _add_limit(plot: figure, limit: Limit) -> GlyphRenderer:
    tags = tags_of(Series(limit.name, [], [], style=limit.style), "line")
    return plot.hspan(y=[limit.y], line_width=1.4, line_dash=[10, 4], line_alpha=0.8, tags=tags)


def _add_forest_row(plot: figure, i: int, row: ForestRow, s: Series) -> None:
    if math.isfinite(row.low):
        add_segments(plot, s, [(row.low, i, row.high, i)])
    rings = finite(row.values)
    plot.scatter(rings, [i] * len(rings), size=6, fill_color=None, line_alpha=0.7, tags=tags_of(s, "line"))
    dot = plot.scatter([row.mean], [i], size=10, tags=tags_of(s, "fill", "line"))
    told = with_interval(row.mean, row.low, row.high)
    add_hover(plot, dot, [(row.name, [told]), ("seeds", [", ".join(number(ring) for ring in rings)])])


def _happened(xs: Numbers, marks: Sequence[tuple[float | int, str]]) -> list[tuple[str, list[str]]]:
    """The texts of the marks, at the nearest x of each; no column without marks."""
    told: list[list[str]] = [[] for _ in xs]
    for place, what in marks:
        told[min(range(len(xs)), key=lambda i: abs(xs[i] - place))].append(what)
    return [("guard", ["; ".join(at_x) or "–" for at_x in told])] if marks else []


def _table(xs: Numbers, series: Sequence[Series], digits: int) -> list[list[str]]:
    places = [{x: i for i, x in enumerate(s.x)} for s in series]
    return [
        [number(x), *(_cell(s, at[x], digits) if x in at else "–" for s, at in zip(series, places, strict=True))]
        for x in xs
    ]


def _cell(s: Series, i: int, digits: int) -> str:
    return with_interval(s.y[i], s.low[i], s.high[i], digits) if s.low else number(s.y[i], digits)


def _trend(series: Sequence[Series], digits: int) -> str:
    """The text alternative: where each line starts, ends and lies between."""
    told = []
    for s in series:
        ys = finite(s.y)
        told.append(
            f"{s.name}: from {number(ys[0], digits)} to {number(ys[-1], digits)},"
            f" between {number(min(ys), digits)} and {number(max(ys), digits)}"
        )
    return "; ".join(told) or "nothing was logged"
