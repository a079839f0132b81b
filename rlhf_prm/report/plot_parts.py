"""Common parts of our charts: an empty plot, hover values, a legend that hides the lines that are clicked.

A drawing refers to its colours by name: a model that has a colour has ``tags``, pairs of one of its
properties and a variable of ``report.css``. The page's script reads the variables, so one drawing serves light and
dark. Every chart also has its numbers as a table, for readers who use no mouse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bokeh.core.properties import value as fixed
from bokeh.embed import json_item
from bokeh.models import (
    ColumnDataSource,
    CrosshairTool,
    DataRange1d,
    GlyphRenderer,
    HoverTool,
    Legend,
    LegendItem,
    Range1d,
)
from bokeh.plotting import figure
from bokeh.themes import Theme

from rlhf_prm.report.styles import look_of

HEIGHT, ROW_HEIGHT = 290, 22  # pixels: of a chart without its legend; of a row of a forest or of a legend
LONGEST_LABEL, LEGEND_WIDTH = 36, 50  # characters: of a label; that stand side by side in the narrowest chart
Numbers = Sequence[float | int]
THEME = Theme(
    json={
        "attrs": {
            "Plot": {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None},
            "Axis": {
                "axis_label_text_font_style": "normal",
                "axis_label_text_font_size": "12px",
                "major_label_text_font_size": "12px",
                "axis_line_color": None,
                "major_tick_line_color": None,
                "minor_tick_line_color": None,
                "tags": [["axis_label_text_color", "--soft"], ["major_label_text_color", "--soft"]],
            },
            "Grid": {"tags": [["grid_line_color", "--rule"]]},
            "Legend": {
                "background_fill_color": None,
                "border_line_color": None,
                "label_text_font_size": "12px",
                "glyph_height": 14,
                "label_height": 14,
                "spacing": 8,
                "padding": 2,
                "margin": 0,
                "inactive_fill_alpha": 0.7,
                "tags": [["label_text_color", "--soft"], ["inactive_fill_color", "--card"]],
            },
            "CrosshairTool": {"line_alpha": 0.5, "tags": [["line_color", "--fg"]]},
        }
    }
)


@dataclass(frozen=True)
class Series:
    """One line: y over x, with an interval where ``low`` and ``high`` are known; ``style``: see ``report.styles``."""

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    style: int | str = 0


@dataclass(frozen=True)
class Chart:
    """A figure of the page: the drawing, its text alternative and the numbers behind it."""

    title: str
    description: str
    plot: figure
    header: list[str]
    rows: list[list[str]]


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for reading: '–' where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return (
        f"{value:.{digits}g}"
        if abs(value) >= 1000 or 0 < abs(value) < 0.001
        else f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"
    )


def with_interval(mean: float | int, low: float | int, high: float | int, digits: int = 3) -> str:
    """``0.5 (0.4 to 0.6)``; the mean alone where there is no interval."""
    known = math.isfinite(low) and math.isfinite(high)
    return number(mean, digits) + (f" ({number(low, digits)} to {number(high, digits)})" if known else "")


def finite(values: Numbers) -> list[float | int]:
    return [value for value in values if value is not None and math.isfinite(value)]


def shortened(label: str) -> str:
    """The label, or its beginning; the table of numbers has it whole."""
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def plot_json(plot: figure, name: str) -> dict[str, Any]:
    """What BokehJS draws ``plot`` from. Bokeh counts its ids through the whole process; here they start anew after
    ``name``, which no other plot of the page has, so that the same run gives the same page."""
    ids: dict[str, str] = {}
    for renderer in plot.select({"type": GlyphRenderer}):  # looks of what is selected, which our pages cannot do
        renderer.nonselection_glyph = renderer.muted_glyph = None

    def renamed(part: Any) -> Any:
        if isinstance(part, dict):
            keys = ("id", "root_id")
            return {
                key: ids.setdefault(old, f"{name}-{len(ids)}") if key in keys else renamed(old)
                for key, old in part.items()
            }
        return [renamed(old) for old in part] if isinstance(part, list) else part

    return renamed(json_item(plot, theme=THEME))


def empty_plot(x_label: str, y_label: str, height: int = HEIGHT, **ranges: Any) -> figure:
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="box_zoom,pan,wheel_zoom,reset,save",
        active_drag="box_zoom",  # the wheel moves the page until the reader asks for its zoom
        active_scroll=None,
        toolbar_location="right",
        x_axis_label=x_label,
        y_axis_label=y_label,
        **ranges,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


def tags_of(s: Series, *kinds: str) -> list[list[str]]:
    """Which of a glyph's colours (``line``, ``fill``) are the series'."""
    return [[f"{kind}_color", look_of(s.style)[0]] for kind in kinds]


def add_segments(plot: figure, s: Series, lines: Sequence[tuple[float, float, float, float]]) -> GlyphRenderer:
    x0, y0, x1, y1 = (list(column) for column in zip(*lines, strict=True)) if lines else ([], [], [], [])
    return plot.segment(x0, y0, x1, y1, line_width=1.8, tags=tags_of(s, "line"))


def add_hover(
    plot: figure, renderer: GlyphRenderer, columns: Sequence[tuple[str, Sequence[str]]], **options: Any
) -> None:
    """Show these (name, a text for each of the renderer's points) where the mouse is over a point."""
    for i, (name, texts) in enumerate(columns):  # in one text: Bokeh writes the names of values too pale to be read
        renderer.data_source.data[f"told{i}"] = [f"{name}: {text}" for text in texts]
    tooltips = [("", f"@told{i}") for i in range(len(columns))]
    plot.add_tools(HoverTool(renderers=[renderer], tooltips=tooltips, visible=False, **options))


def add_reading(plot: figure, xs: Numbers, columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Show a row of the table of numbers wherever the mouse is: an unseen strip around each x, a line to find it by."""
    between = [(a + b) / 2 for a, b in pairwise(xs)]
    edge = (xs[-1] - xs[0]) / (2 * len(xs)) or 1.0
    data = {"left": [xs[0] - edge, *between], "right": [*between, xs[-1] + edge]}
    strips = plot.vstrip("left", "right", source=ColumnDataSource(data), fill_alpha=0, line_alpha=0)
    add_hover(plot, strips, columns, point_policy="follow_mouse")
    plot.add_tools(CrosshairTool(dimensions="height", visible=False))


def columns_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, list[str]]]:
    """A table by its columns."""
    return [(name, [row[i] for row in rows]) for i, name in enumerate(header)]


def fit_to(plot: figure, renderers: list[GlyphRenderer]) -> None:
    """Scale both axes to what of these is shown, so that a line that was hidden makes room."""
    plot.x_range = DataRange1d(renderers=renderers, only_visible=True, range_padding=0.03)
    plot.y_range = DataRange1d(renderers=renderers, only_visible=True, range_padding=0.1)


def name_rows(plot: figure, names: Sequence[str]) -> None:
    """Names instead of numbers along y, the first on top."""
    plot.y_range = Range1d(len(names) - 0.4, -0.6)
    plot.yaxis.ticker = list(range(len(names)))
    plot.yaxis.major_label_overrides = {i: shortened(name) for i, name in enumerate(names)}
    plot.ygrid.visible = False


def add_legend(plot: figure, entries: Sequence[tuple[str, list[GlyphRenderer]]]) -> None:
    """A legend over the plot where there is more than one thing to tell apart; a click hides a thing and its band."""
    if len(entries) < 2:
        return
    items = [LegendItem(label=fixed(shortened(name)), renderers=renderers) for name, renderers in entries]
    columns = max(1, min(len(items), LEGEND_WIDTH // (5 + max(len(shortened(name)) for name, _ in entries))))
    plot.add_layout(Legend(items=items, ncols=columns, click_policy="hide", location="left"), "above")
    plot.height += ROW_HEIGHT * math.ceil(len(items) / columns)
