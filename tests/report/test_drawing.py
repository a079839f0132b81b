"""What is drawn: one colour per method on every page, intervals of shares inside [0, 1], limits, labels that fit."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bokeh.models import Line

from reward import METHODS
from rlhf_prm.ablation.config import AblationConfig
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.report import styles, write_comparison, write_report
from rlhf_prm.report.charts import Subject, bounded, lines
from rlhf_prm.report.drawing import (
    ForestRow,
    Limit,
    Point,
    bar_chart,
    forest_chart,
    histogram,
    line_chart,
    scatter_chart,
)
from rlhf_prm.report.plot_parts import Series, plot_json
from rlhf_prm.report.runs import Run, read_run
from rlhf_prm.report.sampling import Gathered
from rlhf_prm.statistics import Interval
from tests.report.made_up import write_run

DRAWING = re.compile(r'<script type="application/json">(.*?)</script>')


def objects(part: Any, kind: str) -> Iterator[dict[str, Any]]:
    """The attributes of every model of this kind in a drawing, with its ``id``."""
    if isinstance(part, dict):
        if part.get("name") == kind and "attributes" in part:
            yield part["attributes"] | {"id": part["id"]}
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from objects(inner, kind)


def drawings(page: Path) -> list[dict[str, Any]]:
    """What Bokeh is given to draw, in the page's order."""
    return [json.loads(text) for text in DRAWING.findall(page.read_text())]


def entries(drawing: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    """Name in the legend → colour and dash of its lines, colour alone of its other marks."""
    glyphs = {renderer["id"]: renderer["glyph"] for renderer in objects(drawing, "GlyphRenderer")}
    found = {}
    for item in objects(drawing, "LegendItem"):
        shown = [glyphs[renderer["id"]] for renderer in item["renderers"]]
        found[item["label"]["value"]] = {
            (colour, str(glyph["attributes"].get("line_dash", [])) if glyph["name"] == "Line" else "")
            for glyph in shown
            for _, colour in glyph["attributes"]["tags"]
        }
    return found


def looks_of(style: int | str) -> set[tuple[str, str]]:
    """What ``entries`` tells of a line with this style and of its marks."""
    colour, dash = styles.look_of(style)
    return {(colour, str(Line(line_dash=dash).line_dash)), (colour, "")}


def legends(page: Path) -> dict[str, set[tuple[str, str]]]:
    """Name in a legend → its looks over the whole page."""
    found: dict[str, set[tuple[str, str]]] = {}
    for drawing in drawings(page):
        for name, looks in entries(drawing).items():
            found.setdefault(name.replace(" (baseline)", "").split(" (")[0], set()).update(looks)
    return found


def test_every_method_has_a_style_of_its_own():
    assert set(styles.METHODS) == set(METHODS)
    assert len({styles.style_of(method) for method in METHODS}) == len(METHODS) <= styles.STYLES


def test_two_of_one_method_are_told_apart_and_the_first_keeps_its_colour():
    found = styles.styles_of([("pure a", "pure"), ("pure b", "pure"), ("vppo", "vppo"), ("mine.method", "mine.method")])
    assert found["pure a"] == styles.style_of("pure") and found["vppo"] == styles.style_of("vppo")
    assert len(set(found.values())) == 4
    assert len(styles.styles_of((str(i), "pure") for i in range(40))) == 40


def test_a_method_has_the_same_colour_on_every_page(tmp_path):
    run = write_run(tmp_path / "run", "immediate", updates=4)  # beside its baseline
    runs = [
        write_run(tmp_path / f"{m}{s}", m, s, 4, baseline=False) for m in ("pure", "outcome", "vppo") for s in (0, 1)
    ]
    config = AblationConfig(
        recipe="r.py", grid={"method": ["vppo", "outcome", "pure"]}, seeds=[0, 1], output_dir=str(tmp_path / "ablation")
    )
    for cell in cell_runs(config):
        write_run(cell.folder, dict(cell.cell.labels)["method"], cell.seed, 4, baseline=False)
    cells = cell_runs(config)
    pages = [
        write_report(run),
        write_comparison(runs, tmp_path / "comparison.html"),
        write_page(build_table(config, cells), cells, tmp_path / "ablation.html"),
    ]
    for page in pages:
        told = legends(page)
        for method in ("immediate", "outcome", "pure", "vppo"):
            assert told.get(method, set()) <= looks_of(styles.style_of(method)), (page.name, method, told)
    assert {"pure", "outcome", "vppo"} <= set(legends(pages[1])) & set(legends(pages[2]))
    told = legends(pages[0])  # right and wrong have no method's colour
    assert told["correct"] == looks_of("good") and told["incorrect"] == looks_of("bad")


def test_every_colour_is_one_of_the_style_sheet_in_light_and_in_dark():
    sheet = (Path(styles.__file__).parent / "templates" / "report.css").read_text()
    looks = {styles.look_of(style) for style in [*range(styles.STYLES), *styles.OTHERS]}
    assert len({styles.look_of(style) for style in range(styles.STYLES)}) == styles.STYLES
    assert all(sheet.count(f"{colour}:") == 2 for colour, _ in looks)


def test_intervals_of_shares_end_at_0_and_1():
    curve = {0.0: Interval(0.02, -0.1, 0.14), 5.0: Interval(0.97, 0.9, 1.04)}
    assert bounded(curve) == {0.0: Interval(0.02, 0.0, 0.14), 5.0: Interval(0.97, 0.9, 1.0)}
    lengths = {0.0: Interval(0.5, -0.2, 1.2), 5.0: Interval(30.0, 20.0, 40.0)}
    assert bounded(lengths) == lengths
    without = bounded({0.0: Interval(0.5, math.nan, math.nan)})[0.0]
    assert math.isnan(without.low) and math.isnan(without.high)
    subject = Subject("run", 0, Run(Path("."), "run"), Gathered())
    for low, bands in ((math.nan, 0), (0.4, 1)):
        curve = bounded({x: Interval(0.5, low, low + 0.2) for x in (0.0, 1.0)})
        drawing = plot_json(line_chart(lines([subject], lambda _, curve=curve: curve), "metric").plot, "p")
        assert len(list(objects(drawing, "VArea"))) == bands


def test_a_hole_in_a_line_and_an_interval_at_one_place_only():
    """Without its value at 2 the line goes on from 1 to 3; the one interval is an upright stroke."""
    s = Series("a", [1, 2, 3], [0.1, math.nan, 0.3], [math.nan, math.nan, 0.2], [math.nan, math.nan, 0.4])
    chart = line_chart([s], "measure")
    drawing = plot_json(chart.plot, "p")
    columns = [dict(source["data"]["entries"]) for source in objects(drawing, "ColumnDataSource")]
    assert {"x": [1, 3], "y": [0.1, 0.3]} in columns
    assert {"x0": [3], "y0": [0.2], "x1": [3], "y1": [0.4]} in columns
    assert chart.rows == [["1", "0.1"], ["2", "–"], ["3", "0.3 (0.2 to 0.4)"]]


def test_no_interval_of_a_page_leaves_0_to_1(tmp_path):
    """Training outcomes of few groups, almost all right: Student's t alone would go beyond 1."""
    runs = [write_run(tmp_path / f"run{s}", "pure", s, 8, 1, 4, baseline=False, drift=0.69) for s in (0, 1)]
    for page in (write_report(runs[0]), write_comparison(runs, tmp_path / "comparison.html")):
        learning = page.read_text().split('<section id="learning">')[1].split("<section")[0]
        intervals = [tuple(map(float, pair)) for pair in re.findall(r"\(([-\d.]+) to ([-\d.]+)\)", learning)]
        assert intervals and all(0.0 <= low <= high <= 1.0 for low, high in intervals)


def test_limits_are_drawn_inside_the_plot_and_told():
    chart = line_chart([Series("a", [1, 2], [0.1, 0.2])], "measure", limits=[Limit("limit of a", 0.6, 3)])
    drawing = plot_json(chart.plot, "p")
    (line,) = objects(drawing, "HSpan")
    (renderer,) = (one for one in objects(drawing, "GlyphRenderer") if one["glyph"]["name"] == "HSpan")
    assert line["tags"] == [["line_color", "--c3"]]
    assert dict(renderer["data_source"]["attributes"]["data"]["entries"]) == {"y": [0.6]}
    (figure,) = objects(drawing, "Figure")
    fitted = figure["y_range"]["attributes"]["renderers"]  # the axis reaches as far as the limit
    assert renderer["id"] in [one["id"] for one in fitted]
    assert "limit of a at 0.6" in chart.description and "limit of a: 0.6" in entries(drawing)


def test_hacking_timeline_draws_the_limits_of_the_guard(tmp_path):
    run = write_run(tmp_path / "run", baseline=False)
    assert not [line for drawing in drawings(write_report(run)) for line in objects(drawing, "HSpan")]
    evidence = "repetition 0.031, at first 0.01, limit 0.018; held_out_accuracy 0.2, at best 0.5, limit 0.4"
    (run / "hack_guard.jsonl").write_text(json.dumps({"step": 9, "action": "warn", "evidence": evidence}) + "\n")
    assert read_run(run).hack_limits == {"repetition": 0.018, "held_out_accuracy": 0.4}  # what tripped, from the log
    (run / "hack_limits.json").write_text('{"repetition": 0.019, "no_answer": 0.07}')
    page = write_report(run)
    limits = [line["tags"] for drawing in drawings(page) for line in objects(drawing, "HSpan")]
    assert limits == [[["line_color", "--c0"]]] * 2  # one in each of the two hack/… charts, in the run's own colour
    told = {name for drawing in drawings(page) for name in entries(drawing)}
    assert {"limit of immediate, seed 0: 0.019", "limit of immediate, seed 0: 0.07"} <= told


def test_bars_lie_beside_their_labels_and_two_runs_do_not_cover_each_other():
    series = [Series("run", [], [1.0, 2.0, 3.0]), Series("baseline", [], [1.0, 1.0, 1.0], style=1)]
    names = ["policy", "labels", "a stage whose name is longer than any chart could show beside its bar"]
    chart = bar_chart(names, series, "Seconds by stage", "stage", "seconds")
    drawing = plot_json(chart.plot, "p")
    ys = [dict(source["data"]["entries"])["y"] for source in objects(drawing, "ColumnDataSource")]
    heights = [bar["height"]["value"] for bar in objects(drawing, "HBar") if "height" in bar][:2]
    for i in range(3):
        assert i - 0.5 < ys[0][i] - heights[0] / 2 and ys[0][i] + heights[0] / 2 <= ys[1][i] - heights[1] / 2
        assert ys[1][i] + heights[1] / 2 < i + 0.5
    labels = [
        dict(axis["major_label_overrides"]["entries"])
        for axis in objects(drawing, "LinearAxis")
        if "ticker" in axis and "major_label_overrides" in axis
    ]
    assert labels == [{0: "policy", 1: "labels", 2: "a stage whose name is longer than a…"}]
    assert chart.rows[2] == [names[2], "3", "1"]


def test_a_histogram_stands_in_its_bins():
    series = [Series("right", [], [0.25, 0.75]), Series("wrong", [], [1.0, 0.0])]
    chart = histogram([0.0, 0.5, 1.0], series, "Scores", "score", "share", "two bins")
    data = [dict(s["data"]["entries"]) for s in objects(plot_json(chart.plot, "p"), "ColumnDataSource")]
    first, second = (columns for columns in data if "top" in columns)
    assert first["left"] == pytest.approx([0.04, 0.54]) and first["right"] == pytest.approx([0.25, 0.75])
    assert second["left"] == pytest.approx([0.25, 0.75]) and second["right"] == pytest.approx([0.46, 0.96])
    assert chart.rows == [["0.00 to 0.50", "0.25", "1"], ["0.50 to 1.00", "0.75", "0"]]


def test_a_forest_is_ordered_coloured_by_its_intervals_and_scaled_by_its_values():
    rows = [
        ForestRow("bad", -0.2, -0.3, -0.1, [-0.3, -0.1]),
        ForestRow("good", 0.2, 0.1, 0.3, [0.1, 0.3]),
        ForestRow("open", 0.1, -50.0, 50.0, [0.0, 0.2]),
        ForestRow("none", math.nan, math.nan, math.nan),
    ]
    chart = forest_chart(rows, "Difference", "difference", "note")
    assert [row[0] for row in chart.rows] == ["good", "open", "bad"]
    drawing = plot_json(chart.plot, "p")
    strokes = [segment["tags"][0][1] for segment in objects(drawing, "Segment") if segment.get("line_alpha") is None]
    assert strokes == ["--good", "--soft", "--bad"]
    assert chart.plot.x_range.start == pytest.approx(-0.825) and chart.plot.x_range.end == pytest.approx(0.825)


def test_a_scatter_has_a_mark_for_each_world_and_only_the_intervals_that_are_known():
    points = [Point("a", "plain", 0.6, 0.1, y_low=0.0, y_high=0.2), Point("b", "long", 0.7, -0.1, 0.65, 0.75)]
    chart = scatter_chart(points, {"plain": 0, "long": 1}, "Curve", "AUROC", "gain", "note")
    drawing = plot_json(chart.plot, "p")
    strokes = [dict(s["data"]["entries"]) for s in objects(drawing, "ColumnDataSource")]
    strokes = [columns for columns in strokes if "x0" in columns]
    assert strokes == [
        {"x0": [0.6], "y0": [0.0], "x1": [0.6], "y1": [0.2]},
        {"x0": [0.65], "y0": [-0.1], "x1": [0.75], "y1": [-0.1]},
    ]
    marks = [dots.get("marker") for dots in objects(drawing, "Scatter") if "fill_alpha" not in dots]
    assert chart.rows == [["a", "plain", "0.6", "0.1 (0 to 0.2)"], ["b", "long", "0.7 (0.65 to 0.75)", "-0.1"]]
    assert len(set(map(str, marks))) == 2 and list(entries(drawing)) == ["plain", "long"]


def test_numbers_of_ids_start_anew_for_every_drawing():
    charts = [line_chart([Series("p1001", [1, 2], [0.1, 0.2])], "measure") for _ in range(2)]
    assert plot_json(charts[0].plot, "p") == plot_json(charts[1].plot, "p")
    assert plot_json(charts[0].plot, "q") != plot_json(charts[1].plot, "p")
    assert charts[0].header == ["update", "p1001"]
