"""The page: complete, self-contained, safe against the text of models, small, the same every time."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlhf_prm.cli import main
from rlhf_prm.report import write_comparison, write_report
from rlhf_prm.report.gallery import clipped, colour
from rlhf_prm.report.page import BOKEH
from tests.report.made_up import write_run

ATTACK = "</li></script><script>alert(1)</script><img src=x onerror=alert(2)>\" onfocus='alert(3)' {{ 7*7 }}"


class Page(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with its page, for those who only read."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run")
    assert write_report(folder) == folder / "report.html"
    return folder


def test_every_section_is_there_and_every_chart_has_a_text_alternative(run):
    text = (run / "report.html").read_text()
    ids = [a["id"] for a in Page(text).named("section") if "id" in a]
    assert ids == ["result", "learning", "reward", "process", "scores", "hacking", "time", "rollouts", "settings"]
    plots = [a for a in Page(text).named("div") if a.get("class") == "plot"]
    assert len(plots) >= 14
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 20 for plot in plots)
    assert "2.13.0+cpu" in text and "learning_rate" in text


def test_nothing_is_asked_of_a_server(run):
    text = (run / "report.html").read_text()
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:,")) or not value, (tag, name, value)
    ours = text
    for library in BOKEH.js_raw:  # its comments name addresses; that it asks for none is seen in a browser
        assert library in ours
        ours = ours.replace(library, "")
    assert "http://" not in ours and "https://" not in ours and "url(" not in ours and "@import" not in ours


def test_text_of_models_cannot_become_markup(tmp_path, run):
    attack = write_run(tmp_path / "run", step_text=ATTACK, method=ATTACK.replace("/", ""))
    text = write_report(attack).read_text()
    page = Page(text)
    harmless = Page((run / "report.html").read_text())
    assert len(page.named("script")) == len(harmless.named("script")) and page.named("img") == []
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in text and "{{ 7*7 }}" in text


def test_ten_thousand_rollouts_of_long_text_stay_below_five_megabytes(tmp_path):
    sizes = {"updates": 40, "groups": 16, "size": 16, "steps_up_to": 60, "step_text": "x" * 300}
    run = write_run(tmp_path / "run", **sizes, baseline=False)  # whose rollouts have no steps to show
    page = write_report(run)
    assert page.stat().st_size < 5_000_000
    assert "of 10240 logged rollouts" in page.read_text()


def test_the_same_run_gives_the_same_page(tmp_path, run):
    assert write_report(run, tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_run_that_is_only_metrics_still_has_a_page(tmp_path):
    run = write_run(tmp_path / "run", updates=2, baseline=False)
    for part in (run / "completions").iterdir():
        part.unlink()
    (run / "summary.json").unlink()
    ids = [a["id"] for a in Page(write_report(run).read_text()).named("section") if "id" in a]
    assert "learning" in ids and "rollouts" not in ids


def test_the_guards_decisions_are_marked_and_listed(tmp_path):
    run = write_run(tmp_path / "run", baseline=False)
    decision = '{"step": 12, "detector": "repetition", "action": "anneal", "evidence": "0.31 > 0.2"}\n'
    (run / "hack_guard.jsonl").write_text(decision)
    text = write_report(run).read_text()
    upright = re.findall(r'"name":"Span","id":"[^"]*","attributes":{"tags":[^}]*"dimension":"height"[^}]*}', text)
    assert len(upright) == 2 and all('"location":12.0' in line for line in upright)  # one in each hack/… chart
    assert "0.31 &gt; 0.2" in text


def test_seeds_are_averaged_and_methods_kept_apart(tmp_path):
    runs = [write_run(tmp_path / f"{m}{s}", m, s, 4, baseline=False) for m in ("outcome", "pure") for s in (0, 1, 2)]
    text = write_comparison(runs, tmp_path / "comparison.html").read_text()
    assert "outcome (3 seeds)" in text and "pure (3 seeds)" in text
    assert text.count('<details class="gallery"') == 6


def test_command_line(tmp_path, capsys):
    run = write_run(tmp_path / "run", updates=2)
    assert main(["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    assert main(["report", str(run), str(run / "baseline"), "--out", str(tmp_path / "both.html")]) == 0
    assert (tmp_path / "both.html").exists()
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "which is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("score", "name"), [(0.0, "q0"), (0.5, "q5"), (1.0, "q10"), (1.7, "q10"), (float("nan"), "")])
def test_colour_scale(score, name):
    assert colour(score) == name


def test_clipped_tells_what_is_missing():
    assert clipped("abc", 3) == "abc" and clipped("abcdef", 3) == "abc… (+3 characters)"
