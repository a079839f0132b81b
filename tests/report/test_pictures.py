"""The pictures of the documentation: what they show, and that a picture is taken."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.report.browser import needs_chromium, pictures

CURVE = {
    "title": "A measure and the gain",
    "x_label": "AUROC",
    "y_label": "gain",
    "points": [
        {"name": "a", "group": "plain", "x": 0.6, "y": 0.02, "y_low": -0.02, "y_high": 0.06},
        {"name": "b", "group": "long", "x": 0.8, "y": -0.1},
    ],
}


def test_a_forest_for_each_world():
    def row(name, *values):
        return {"name": name, "mean": sum(values) / 2, "low": -0.1, "high": 0.2, "values": list(values)}

    gains = {"plain": [row("pure", 0.2, -0.1)], "long": [row("pure", 0.1, 0.1), row("capo", 0.0, 0.3)], "filler": []}
    plain, long = pictures.ablation(gains, ["plain", "long"])
    assert plain.title == "Gain in accuracy, plain world" and plain.rows == [["pure", "0.05", "-0.1", "0.2"]]
    assert {row[0] for row in long.rows} == {"pure", "capo"}
    _, rings, _ = plain.plot.renderers  # between the interval and the mean
    assert rings.data_source.data["x"] == pytest.approx([0.2, -0.1])


def test_a_contender_has_one_look_in_every_world(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "line_chart", lambda series, title: drawn.append((title, series)))
    curves = {
        "filler": {"refreshed": [[10, 0.8, 0.7, 0.9]]},
        "plain": {"frozen": [[8, 0.9, 0.8, 1.0], [16, 0.85, 0.8, 0.9]], "refreshed": [[8, 0.9, 0.8, 1.0]]},
    }
    pictures.quality(curves)
    (first, (frozen, refreshed)), (second, (alone,)) = drawn
    assert first.endswith("plain world") and second.endswith("filler world")
    assert frozen.style != refreshed.style == alone.style
    assert (frozen.name, frozen.x, frozen.y) == ("frozen", [8, 16], [0.9, 0.85])


def test_a_point_with_a_name_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"got .*gain.*expected .*y_low"):
        pictures.curve(CURVE | {"points": [{"name": "a", "group": "plain", "x": 0.6, "y": 0.02, "gain": 1.0}]})


@needs_chromium
def test_a_curve_is_taken_as_a_small_picture(tmp_path, monkeypatch):
    (tmp_path / "points.json").write_text(json.dumps(CURVE))
    arguments = ["curve", str(tmp_path / "points.json"), "--out", str(tmp_path / "docs" / "curve.png")]
    monkeypatch.setattr(sys, "argv", ["pictures.py", *arguments])
    pictures.main()
    path = Path(arguments[-1])
    assert path.stat().st_size < 60_000
    image = Image.open(path).convert("RGB")
    assert image.width > 1000 and image.height > 400
    colours = {colour for _, colour in image.getcolors(100_000)}
    for wanted in ((0, 114, 178), (192, 79, 0)):  # of the two worlds
        assert min(sum(abs(a - b) for a, b in zip(wanted, colour, strict=True)) for colour in colours) < 24


def test_without_chromium_it_is_told_what_to_install(monkeypatch):
    monkeypatch.delenv("RLHF_PRM_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="apt-get install chromium"), pictures.chromium():
        pass
