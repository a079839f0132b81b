"""What is drawn: one colour per method on every page, intervals of shares inside [0, 1], limits, labels that fit."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest

from reward import METHODS
from rlhf_prm.ablation.config import AblationConfig
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.report import styles, write_comparison, write_report
from rlhf_prm.report.charts import Subject, bounded, lines
from rlhf_prm.report.runs import Run, read_run
from rlhf_prm.report.sampling import Gathered
from rlhf_prm.report.svg import CHARACTER, Limit, Series, bar_chart, line_chart
from rlhf_prm.statistics import Interval
from tests.report.made_up import write_run

LEGEND = re.compile(r'<li><svg viewBox="0 0 28 10"[^>]*><path class="line c(\w+)"[^>]*/></svg>([^<]+)</li>')


def metric_page(curve) -> str:
    """The drawing of a curve without intervals."""
    run = Run(Path("."), "run")
    return line_chart(lines([Subject("run", 0, run, Gathered())], lambda _: curve), "metric").svg


def legends(page) -> dict[str, set[str]]:
    """Name in a legend → its styles over the whole page."""
    found: dict[str, set[str]] = {}
    for style, name in LEGEND.findall(page.read_text()):
        found.setdefault(name.replace(" (baseline)", "").split(" (")[0], set()).add(style)
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
    run = write_run(tmp_path / "run", "immediate", updates=4)
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
            assert told.get(method, set()) <= {str(styles.style_of(method))}, (page.name, method, told)
    assert {"pure", "outcome", "vppo"} <= set(legends(pages[1])) & set(legends(pages[2]))


def test_right_and_wrong_do_not_have_a_methods_colour(tmp_path):
    told = legends(write_report(write_run(tmp_path / "run", updates=4)))
    assert told["correct"] == {"good"} and told["incorrect"] == {"bad"}


def test_intervals_of_shares_end_at_0_and_1():
    curve = {0.0: Interval(0.02, -0.1, 0.14), 5.0: Interval(0.97, 0.9, 1.04)}
    assert bounded(curve) == {0.0: Interval(0.02, 0.0, 0.14), 5.0: Interval(0.97, 0.9, 1.0)}
    lengths = {0.0: Interval(0.5, -0.2, 1.2), 5.0: Interval(30.0, 20.0, 40.0)}
    assert bounded(lengths) == lengths
    without = bounded({0.0: Interval(0.5, math.nan, math.nan)})[0.0]
    assert math.isnan(without.low) and math.isnan(without.high)
    assert 'class="band' not in metric_page(bounded({x: Interval(0.5, math.nan, math.nan) for x in (0.0, 1.0)}))


def test_no_interval_of_a_page_leaves_0_to_1(tmp_path):
    """Training outcomes of few groups, almost all right: Student's t alone would go beyond 1."""
    runs = [write_run(tmp_path / f"run{s}", "pure", s, 8, 1, 4, baseline=False, drift=0.69) for s in (0, 1)]
    for page in (write_report(runs[0]), write_comparison(runs, tmp_path / "comparison.html")):
        learning = page.read_text().split('<section id="learning">')[1].split("<section")[0]
        intervals = [tuple(map(float, pair)) for pair in re.findall(r"\(([-\d.]+) to ([-\d.]+)\)", learning)]
        assert intervals and all(0.0 <= low <= high <= 1.0 for low, high in intervals)


def test_limits_are_drawn_inside_the_plot_and_told():
    chart = line_chart([Series("a", [1, 2], [0.1, 0.2])], "measure", limits=[Limit("limit of a", 0.6, 3)])
    line = re.search(r'<path class="limit c3" d="M52 ([\d.]+)H546"><title>limit of a: 0.6</title></path>', chart.svg)
    assert 12 <= float(line[1]) <= 240 and "limit of a at 0.6" in chart.description


def test_hacking_timeline_draws_the_limits_of_the_guard(tmp_path):
    run = write_run(tmp_path / "run", baseline=False)
    assert 'class="limit' not in write_report(run).read_text()
    evidence = "repetition 0.031, at first 0.01, limit 0.018; held_out_accuracy 0.2, at best 0.5, limit 0.4"
    (run / "hack_guard.jsonl").write_text(json.dumps({"step": 9, "action": "warn", "evidence": evidence}) + "\n")
    assert read_run(run).hack_limits == {"repetition": 0.018, "held_out_accuracy": 0.4}  # what tripped, from the log
    (run / "hack_limits.json").write_text('{"repetition": 0.019, "no_answer": 0.07}')
    text = write_report(run).read_text()
    assert text.count('class="limit c0"') == 2  # one in each of the two hack/… charts, in the run's own colour
    assert "limit of immediate, seed 0: 0.019" in text and "limit of immediate, seed 0: 0.07" in text


def test_long_labels_under_bars_are_turned_and_stay_apart():
    names = [
        "policy, supervised",
        "labels of steps",
        "process reward model",
        "reinforcement learning",
        "baseline",
        "evaluation",
    ]
    series = [Series("run", [], [1.0] * len(names))]
    svg = bar_chart(names, series, "Seconds by stage", "stage", "seconds").svg
    places = [float(x) for x in re.findall(r'translate\(([\d.]+) [\d.]+\) rotate\(-40\)">', svg)]
    assert len(places) == len(names)
    gap = min(b - a for a, b in itertools.pairwise(places))
    assert gap * math.sin(math.radians(40)) > 12  # what lies between two turned lines of 12 px
    first = re.search(r'translate\(([\d.]+) [\d.]+\) rotate\(-40\)">([^<]+)<', svg)
    assert float(first[1]) > len(first[2]) * CHARACTER * math.cos(math.radians(40))  # none begins left of the drawing
    height = int(re.search(r'viewBox="0 0 560 (\d+)"', svg)[1])
    assert height > 280 + 0.4 * CHARACTER * max(map(len, names))
    short = bar_chart(["a", "b"], [Series("run", [], [1.0, 2.0])], "Seconds", "stage", "seconds").svg
    assert "rotate(-40)" not in short and 'viewBox="0 0 560 280"' in short


@pytest.mark.parametrize("count", [1, 5, 60])
def test_labels_that_stand_side_by_side_have_room(count):
    labels = [f"{i / 20:.2f}" for i in range(count)]
    svg = bar_chart(labels, [Series("run", [], [1.0] * count)], "Scores", "score", "share").svg
    places = [float(x) for x in re.findall(r'text-anchor="middle" x="([\d.]+)"', svg)]
    assert all(b - a > 4 * CHARACTER for a, b in itertools.pairwise(places))
