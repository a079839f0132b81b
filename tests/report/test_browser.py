"""The page in a real browser: no complaint, no request, hover and keyboard tell the same, legible in light and dark."""

import json

import pytest

from rlhf_prm.ablation.config import AblationConfig
from rlhf_prm.ablation.launch import cell_runs
from rlhf_prm.ablation.page import write_page
from rlhf_prm.ablation.table import build_table
from rlhf_prm.report import write_comparison, write_report
from tests.report.browser import Browser, executable
from tests.report.made_up import write_run

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium (Debian: apt-get install chromium)")

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


# Turned labels are compared by the corners of their last characters: their bounding boxes overlap by nature.
OVERLAPS = """Array.from(document.querySelectorAll('figure > svg')).flatMap((svg) => {
  const boxes = Array.from(svg.querySelectorAll('text')).filter((text) => !text.getAttribute('transform'))
    .map((text) => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) => p.left < q.right - 1 &&
    q.left < p.right - 1 &&
    p.top < q.bottom - 1 && q.top < p.bottom - 1).map(([b]) => [a, b])); })"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    run = write_run(
        tmp_path_factory.mktemp("runs") / "run", step_text="</li><img src=x onerror=console.error(1)> 3 = 3"
    )
    browser.open(write_report(run))
    yield browser
    browser.close()


def tip(browser) -> str:
    return browser.js("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")


def test_no_complaint_and_no_request_but_the_page_itself(browser):
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [browser.js("location.href")]


def test_hover_and_keyboard_show_the_same_about_a_step(browser):
    browser.js("document.querySelector('.step').id = 'first'")
    browser.hover("#first")
    hovered = tip(browser)
    data = browser.js("Object.assign({}, document.querySelector('#first').dataset)")
    assert hovered.splitlines()[:4] == [
        f"step 1 of {data['of']}",
        f"score {data['s']}",
        f"process reward {data['r']}",
        f"advantage {data['a']}",
    ]
    assert hovered.splitlines()[4] in ("verdict: correct", "verdict: incorrect", "verdict: no_answer")
    browser.hover("h1")
    assert tip(browser) == ""
    browser.js("document.querySelector('#show').focus()")
    browser.press("Tab")  # to the first gallery's summary
    browser.press("Tab")  # to the first rollout
    assert browser.js("document.activeElement.id") == "first"
    assert tip(browser) == hovered
    browser.press("ArrowDown")
    assert tip(browser).startswith("step 2 of") and browser.js("document.activeElement.dataset.k") == "2"
    browser.press("End")
    assert tip(browser).startswith(f"step {data['of']} of")
    browser.press("Tab")  # the next rollout, not the next step
    assert tip(browser).startswith("step 1 of") and browser.js("document.activeElement.id") != "first"
    browser.press("Escape")
    assert tip(browser) == ""


def test_charts_are_read_out_by_mouse_and_by_keyboard(browser):
    browser.hover("#learning svg[data-px]")
    assert tip(browser).startswith("update: ") and "immediate: 0." in tip(browser)
    browser.js("document.querySelector('#learning figure summary').focus()")
    browser.js("document.querySelector('#learning svg[data-px]').focus({focusVisible: true})")
    browser.press("Home")
    assert tip(browser).splitlines()[0] == "update: 0"
    browser.js("scrollBy(0, 40); document.dispatchEvent(new Event('scroll'))")
    assert tip(browser).splitlines()[0] == "update: 0"  # follows the page while the chart has the focus
    browser.press("ArrowRight")
    assert tip(browser).splitlines()[0] != "update: 0"
    rows = browser.js("document.querySelectorAll('#learning figure tbody tr')[1].textContent")
    assert all(line.split(": ", 1)[1] in rows for line in tip(browser).splitlines())


def test_every_drawing_has_a_name_for_screen_readers(browser):
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    pictures = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img", "graphics-document")]
    named = [node for node in pictures if node.get("name", {}).get("value")]
    assert len(named) >= 14 and len(named) == len(pictures)


def test_filter_and_colouring(browser):
    browser.js("const s = document.querySelector('#show'); s.value = 'yes'; s.dispatchEvent(new Event('change'))")
    assert browser.js(
        "Array.from(document.querySelectorAll('.rollout')).every(r => r.hidden === (r.dataset.verdict !== 'correct'))"
    )
    browser.js("s.value = 'all'; s.dispatchEvent(new Event('change'))")
    before = browser.js("document.querySelector('.step').className")
    browser.js("const c = document.querySelector('#colour-by'); c.value = 'a'; c.dispatchEvent(new Event('change'))")
    assert browser.js("document.querySelector('.step .sc').textContent === document.querySelector('.step').dataset.a")
    browser.js("c.value = 's'; c.dispatchEvent(new Event('change'))")
    assert browser.js("document.querySelector('.step').className").split() == before.split()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(browser, scheme):
    browser.scheme(scheme)
    for selector in (".step .tx", "h2", ".note", "h4", "td", "th", "figcaption", ".good", ".bad", "nav a"):
        assert browser.js(f"{CONTRAST}({selector!r})") >= 4.5, (scheme, selector)
    page = browser.js("getComputedStyle(document.body).backgroundColor")
    assert (page == "rgb(255, 255, 255)") == (scheme == "light")


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
    for page, told in pages.items():
        other = Browser(tmp_path / page.stem)
        other.open(page)
        assert other.complaints() == [] and told in other.js("document.body.innerText")
        drawings = other.js(
            "Array.from(document.querySelectorAll('figure > svg')).map(s => s.getAttribute('aria-label'))"
        )
        assert drawings and all(drawings)
        other.js("document.querySelector('figure > svg').focus()")
        other.hover(".step")
        assert tip(other).startswith("step ")
        other.close()


def test_the_model_text_did_nothing(browser):
    assert browser.js("document.querySelectorAll('#main img').length") == 0
    assert "</li><img src=x" in browser.js("document.querySelector('.step .tx').textContent")


@pytest.mark.parametrize("width", [1300, 700])
def test_no_table_is_cut_and_no_label_overlaps(tmp_path, width):
    """Two labels under one axis never share a pixel, and everything stands inside the window."""
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
    other = Browser(tmp_path / "profile", width, 900)
    other.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    other.open(write_report(run))
    assert other.js("document.documentElement.scrollWidth") <= width
    tables = "Array.from(document.querySelectorAll('section > .scroll'))"
    assert other.js(f"{tables}.filter(s => s.scrollWidth > s.clientWidth + 1).length") == 0
    overlaps = other.js(OVERLAPS)
    other.close()
    assert overlaps == []


def test_narrow_window_does_not_scroll_sideways(browser):
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    assert browser.js("document.documentElement.scrollWidth") <= 390
    browser.call("Emulation.clearDeviceMetricsOverride")
    assert browser.complaints() == []
