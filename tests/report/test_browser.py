"""The page in a real browser: no complaint, no request, charts that answer, text that is legible in light and dark."""

import json

import pytest

from rlhf_prm.ablation.config import AblationConfig
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.report import write_comparison, write_report
from tests.report.browser import chromium, needs_chromium, opened
from tests.report.made_up import write_run

pytestmark = needs_chromium
BLUE, ORANGE, BLUE_OF_DARK = (0, 114, 178), (192, 79, 0), (86, 180, 233)  # --c0 and --c1 of report.css

CONTRAST = """(selector => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data; };
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = (colour) => { const [r, g, b] = rgb(colour);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor; if (rgb(colour)[3] > 0) return colour; } return "white"; };
  return Math.min(...Array.from(document.querySelectorAll(selector)).map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
})"""
# What a chart's parts take up beyond the chart itself, in pixels to the left and to the right.
BEYOND = """(plot) => {
  const inside = (n) => n.shadowRoot ? [n, ...all(n.shadowRoot)] : [n];
  const all = (root) => Array.from(root.querySelectorAll("*")).flatMap(inside);
  const box = plot.getBoundingClientRect(), parts = all(plot).filter((n) => n.matches(".bk-Legend, .bk-LinearAxis"));
  return parts.map((n) => n.getBoundingClientRect()).map((p) => Math.max(box.left - p.left, p.right - box.right));
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page_of_a_run(tmp_path_factory):
    attack = "</li><img src=x onerror=console.error(1)> 3 = 3"
    run = write_run(tmp_path_factory.mktemp("runs") / "run", step_text=attack)
    (run / "hack_limits.json").write_text('{"repetition": 0.019}')
    decision = {"step": 12, "detector": "repetition", "action": "anneal", "evidence": "0.31 > 0.2"}
    (run / "hack_guard.jsonl").write_text(json.dumps(decision) + "\n")
    return write_report(run)


@pytest.fixture(scope="module")
def tab(browser, page_of_a_run):
    with opened(browser, page_of_a_run) as tab:
        yield tab


def tip(tab) -> str:
    return tab.page.evaluate("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")


def test_every_chart_is_drawn_without_a_complaint_or_a_request(tab):
    plots = tab.page.locator(".plot").all()
    for plot in plots:
        tab.drawn(plot)
    assert tab.page.locator(".bk-Figure").count() == len(plots) >= 14
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith("data:")] == [tab.page.url]


def test_the_mouse_over_a_chart_reads_out_a_row_of_its_table(tab):
    plot = tab.drawn(tab.page.locator("#learning .plot").first)
    table = plot.locator("xpath=..").locator("tbody tr").all()
    rows = [row.locator("th,td").all_text_contents() for row in table]
    heads = plot.locator("xpath=..").locator("thead th").all_text_contents()
    for across, row in ((0.02, rows[0]), (0.5, rows[2]), (0.98, rows[-1])):
        wanted = [f"{name}: {text}" for name, text in zip(heads, row, strict=True)]
        assert tab.hover(plot, across, 0.4).splitlines() == wanted


def test_a_decision_of_the_guard_is_told_where_it_stands(tab):
    plot = tab.drawn(tab.page.locator("#hacking .plot").first)
    told = [tab.hover(plot, across, 0.5) for across in (0.2, 11 / 19)]  # update 12 of 1 to 20
    assert told[0].endswith("guard: –") and told[1].startswith("update: 12\n")
    assert told[1].endswith("guard: anneal: repetition")


def test_a_box_drawn_with_the_mouse_zooms_and_reset_goes_back(tab):
    plot = tab.drawn(tab.page.locator("#learning .plot").first)
    span = """(at) => { const range = Bokeh.documents[at].roots()[0].x_range; return [range.start, range.end]; }"""
    at = 0  # charts are drawn from the top
    whole = tab.page.evaluate(span, at)
    box = plot.locator(".bk-CartesianFrame").bounding_box()
    tab.page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.2 * box["height"])
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
    tab.page.mouse.up()
    part = tab.page.evaluate(span, at)
    assert part[1] - part[0] == pytest.approx((whole[1] - whole[0]) / 2, rel=0.02)
    assert part[0] == pytest.approx(whole[0] + (whole[1] - whole[0]) / 4, abs=0.3)
    plot.hover()
    plot.locator(".bk-tool-icon-reset").click()
    assert tab.page.evaluate(span, at) == whole


def test_the_wheel_over_a_chart_moves_the_page(tab):
    plot = tab.drawn(tab.page.locator("#learning .plot").first)
    before = tab.page.evaluate("scrollY")
    plot.hover()
    tab.page.mouse.wheel(0, 60)
    tab.page.wait_for_function(f"scrollY > {before}")


def test_a_click_in_the_legend_hides_a_line_and_its_band(tab):
    plot = tab.drawn(tab.page.locator("#learning .plot").first)
    tab.page.mouse.move(0, 0)
    entries = plot.locator(".bk-Legend .bk-item")
    assert entries.all_text_contents() == ["immediate", "outcome (baseline)"]
    both = [tab.pixels(plot, BLUE), tab.pixels(plot, ORANGE)]
    assert min(both) > 300
    entries.first.click()
    tab.page.mouse.move(0, 0)
    assert tab.pixels(plot, BLUE) == 0 and tab.pixels(plot, ORANGE) > 300
    entries.first.click()
    tab.page.mouse.move(0, 0)
    assert tab.pixels(plot, BLUE) > 0.9 * both[0]


def test_charts_change_colour_with_the_readers_scheme(tab):
    plot = tab.drawn(tab.page.locator("#learning .plot").first)
    tab.page.mouse.move(0, 0)
    assert tab.pixels(plot, BLUE) > 300 and tab.pixels(plot, BLUE_OF_DARK) == 0
    tab.page.emulate_media(color_scheme="dark")
    assert tab.pixels(plot, BLUE_OF_DARK) > 300 and tab.pixels(plot, BLUE) == 0
    tab.page.emulate_media(color_scheme="light")
    assert tab.pixels(plot, BLUE) > 300


def test_charts_that_were_not_seen_are_printed_too(browser, page_of_a_run):
    with opened(browser, page_of_a_run) as tab:
        tab.drawn(tab.page.locator(".plot").first)
        assert tab.page.locator(".bk-Figure").count() < tab.page.locator(".plot").count()
        tab.draw_all()
        assert tab.page.locator(".bk-Figure").count() == tab.page.locator(".plot").count()
        assert tab.complaints == []


def test_hover_and_keyboard_show_the_same_about_a_step(tab):
    tab.page.evaluate("document.querySelector('.step').id = 'first'")
    tab.point_at(tab.page.locator("#first"))
    hovered = tip(tab)
    data = tab.page.evaluate("Object.assign({}, document.querySelector('#first').dataset)")
    assert hovered.splitlines()[:4] == [
        f"step 1 of {data['of']}",
        f"score {data['s']}",
        f"process reward {data['r']}",
        f"advantage {data['a']}",
    ]
    assert hovered.splitlines()[4] in ("verdict: correct", "verdict: incorrect", "verdict: no_answer")
    tab.page.hover("h1")
    assert tip(tab) == ""
    tab.page.focus("#show")
    tab.page.keyboard.press("Tab")  # to the first gallery's summary
    tab.page.keyboard.press("Tab")  # to the first rollout
    assert tab.page.evaluate("document.activeElement.id") == "first"
    assert tip(tab) == hovered
    tab.page.keyboard.press("ArrowDown")
    assert tip(tab).startswith("step 2 of") and tab.page.evaluate("document.activeElement.dataset.k") == "2"
    tab.page.keyboard.press("End")
    assert tip(tab).startswith(f"step {data['of']} of")
    tab.page.keyboard.press("Tab")  # the next rollout, not the next step
    assert tip(tab).startswith("step 1 of") and tab.page.evaluate("document.activeElement.id") != "first"
    tab.page.keyboard.press("Escape")
    assert tip(tab) == ""


def test_every_drawing_has_a_name_for_screen_readers(tab):
    pictures = tab.page.get_by_role("img")
    names = [picture.get_attribute("aria-label") for picture in pictures.all()]
    assert len(names) == tab.page.locator(".plot").count() >= 14
    assert all(" from " in name or "rollouts" in name or "Hollow: start" in name for name in names)


def test_filter_and_colouring(tab):
    tab.page.select_option("#show", "yes")
    shown = tab.page.locator(".rollout").filter(visible=True)
    assert {one.get_attribute("data-verdict") for one in shown.all()} == {"correct"}
    tab.page.select_option("#show", "all")
    step = tab.page.locator(".step").first
    before = step.get_attribute("class")
    tab.page.select_option("#colour-by", "a")
    assert step.locator(".sc").text_content() == step.get_attribute("data-a")
    tab.page.select_option("#colour-by", "s")
    assert step.get_attribute("class").split() == before.split()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(tab, scheme):
    tab.page.emulate_media(color_scheme=scheme)
    for selector in (".step .tx", "h2", ".note", "h4", "td", "th", "figcaption", ".good", ".bad", "nav a"):
        assert tab.page.evaluate(f"{CONTRAST}({selector!r})") >= 4.5, (scheme, selector)
    page = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (page == "rgb(255, 255, 255)") == (scheme == "light")
    tab.page.emulate_media(color_scheme="light")


def test_pages_of_comparisons_and_ablations_are_sound_too(browser, tmp_path):
    names = [(method, seed) for method in ("outcome", "pure") for seed in (0, 1)]
    runs = [write_run(tmp_path / f"{m}{s}", m, s, 4, 2, 4, baseline=False) for m, s in names]
    config = AblationConfig(
        recipe="r.py", grid={"method": ["outcome", "pure"]}, seeds=[0, 1], output_dir=str(tmp_path / "ablation")
    )
    cells = cell_runs(config)
    for cell in cells:
        write_run(cell.folder, dict(cell.cell.labels)["method"], cell.seed, 4, 2, 4, baseline=False)
    pages = {
        write_comparison(runs, tmp_path / "comparison.html"): "outcome (2 seeds)",
        write_page(build_table(config, cells), cells, tmp_path / "ablation.html"): "Difference in accuracy.after",
    }
    for path, told in pages.items():
        with opened(browser, path) as other:
            assert other.draw_all() >= 4
            legends = other.page.locator(".bk-Legend .bk-item").all_text_contents()
            assert other.complaints == [] and told in legends + other.page.locator("figcaption").all_text_contents()
            assert all(plot.get_attribute("aria-label") for plot in other.page.locator(".plot").all())
            other.point_at(other.page.locator(".step").first)
            assert tip(other).startswith("step ")
    with opened(browser, tmp_path / "ablation.html") as other:
        forest = other.drawn(other.page.locator(".plot").first)
        assert other.page.locator("tbody th").first.text_content() == "pure"
        mean = other.page.locator("tbody td").first.text_content()
        across = other.page.evaluate(
            "(mean) => { const range = Bokeh.documents[0].roots()[0].x_range;"
            " return (mean - range.start) / (range.end - range.start); }",
            float(mean),
        )
        assert other.hover(forest, across, 0.6).startswith(f"pure: {mean} (")


def test_the_model_text_did_nothing(tab):
    assert tab.page.locator("#main img").count() == 0
    assert "</li><img src=x" in tab.page.locator(".step .tx").first.text_content()


def test_nothing_stands_outside_the_window_or_its_chart(browser, tmp_path):
    """Neither tables nor long names of stages and methods: labels of bars and legends end inside their charts."""
    run = write_run(tmp_path / "run", method="a_method_with_a_long_name")
    summary = json.loads((run / "summary.json").read_text())
    summary["seconds"] = {f"{name} of the toy world": 3.0 for name in ("demonstrations", "labels", "PRM", "evaluation")}
    (run / "summary.json").write_text(json.dumps(summary))
    guard = {
        "step": 8,
        "verdict": "fallen",
        "action": "rollback",
        "detector": "step_count_correlation, held_out_accuracy",
        "evidence": "step_count_correlation 0.03, at first 0.01, limit 0.02; " * 4,
        "accuracy": 0.3123,
        "best_accuracy": 0.4123,
        "start": 0.3123,
        "process_scale": 0.25,
    }
    (run / "hack_guard.jsonl").write_text(json.dumps(guard) + "\n")
    with opened(browser, write_report(run)) as other:
        other.draw_all()
        for width in (1300, 700):
            other.page.set_viewport_size({"width": width, "height": 900})
            other.settled()
            # Charts take the new width one after the other; on a busy machine that is not done at once.
            other.page.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=20_000)
            tables = "Array.from(document.querySelectorAll('section > .scroll'))"
            cut = other.page.evaluate(f"{tables}.filter(s => s.scrollWidth > s.clientWidth + 1).length")
            assert width < 700 or cut == 0
            for plot in other.page.locator(".plot").all():
                beyond = plot.evaluate(BEYOND)
                assert len(beyond) >= 2 and max(beyond) <= 1, (width, plot.get_attribute("aria-label"))
        assert other.complaints == []
