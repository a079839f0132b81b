"""The pictures of the documentation, taken by Chromium from the pages that our own code writes.

    python benchmarks/pictures.py heat-map RUN/report.html    a run's rollouts                     → heat_map.png
    python benchmarks/pictures.py ablation forests.json       every method's gain in some worlds → ablation.png
    python benchmarks/pictures.py curve points.json           a measure of PRMs against the gain   → curve.png
    python benchmarks/pictures.py quality quality.json        scores of a run over its updates      → quality.png

They are written to docs/images, or where ``--out`` says. `benchmarks/dense_rewards_tables.py forests` gives
``forests.json``: world → [{"name": str, "mean": float, "low": float, "high": float, "values": [float, …]}, …].

``points.json``, of a curve:
{"title": str, "x_label": str, "y_label": str,
 "points": [{"name": str, "group": str, "x": float, "y": float, "y_low": float, "y_high": float}, …]}
One point is one PRM in one world: ``x`` is what was measured of it, ``y`` what training on it gained, ``group`` its
world, which has a colour and a mark of its own. ``x_low`` and ``x_high`` may be given too; an interval may be absent.

``quality.json`` comes from `benchmarks/learning_along.py quality`: world → contender → [[update, mean over the builds,
lowest, highest], …].

Needs Playwright (``pip install 'rlhf-prm[test]'``) and an installed Chromium.
"""

import argparse
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from rlhf_prm.report.drawing import ForestRow, Point, forest_chart, line_chart, scatter_chart
from rlhf_prm.report.page import render
from rlhf_prm.report.plot_parts import Chart, Series

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WORLDS = {"plain": "plain world", "long": "long chains", "filler": "filler world", "gold10": "10 % gold answers"}
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SCALE, COLOURS = 1.5, 128  # pixels of the picture to one of the page; of its palette, which keeps the file small


def executable() -> str | None:
    """Where Chromium is; RLHF_PRM_CHROMIUM comes before the usual names."""
    return os.environ.get("RLHF_PRM_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """An installed Chromium without a window.

    Raises:
        ValueError: there is none.
    """
    path = executable()
    if path is None:
        raise ValueError(
            f"Chromium: found none of {', '.join(CHROMIUM_NAMES)} on the PATH; install one (Debian: apt-get install"
            " chromium) or name it by RLHF_PRM_CHROMIUM"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


def take(page: Path, selector: str, out: Path, width: int, height: int = 1200) -> None:
    """A picture of the page in light colours: the first element that matches with a margin, at most ``height`` high."""
    with chromium() as browser:
        tab = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=SCALE, color_scheme="light"
        )
        tab.goto(page.resolve().as_uri())
        tab.add_style_tag(content=".numbers { display: none }")
        part = tab.locator(selector).first
        for plot in part.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".bk-CartesianFrame").wait_for(state="attached")
        part.evaluate("(element) => scrollTo(0, scrollY + element.getBoundingClientRect().top - 12)")
        tab.wait_for_timeout(500)  # for the paint after the layout
        box = part.bounding_box()
        place = {"x": box["x"] - 12, "y": max(0, box["y"] - 12), "width": box["width"] + 24}
        place["height"] = min(box["height"] + 24, height - place["y"])
        picture = tab.screenshot(clip=place)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(picture)).quantize(COLOURS).save(out, optimize=True)


def picture(charts: list[Chart], out: Path, width: int, note: str = "") -> None:
    """A picture of charts side by side, as they look on our pages."""
    part = {"id": "charts", "title": "", "note": note, "charts": charts, "tables": []}
    with tempfile.TemporaryDirectory() as folder:
        page = render(Path(folder) / "page.html", "", "", [part], [], [])
        take(page, ".charts", out, width)


def curve(data: dict[str, Any]) -> Chart:
    """A scatter plot of what training gained against what was measured before, a colour for each world.

    Raises:
        ValueError: a point has something that no point has.
    """
    known = set(Point.__dataclass_fields__)
    for point in data["points"]:
        if not point.keys() <= known:
            raise ValueError(f"a point of the curve: got {sorted(point)}; expected nothing but {sorted(known)}")
    points = [Point(**point) for point in data["points"]]
    groups = list(dict.fromkeys(point.group for point in points))
    title, x_label, y_label = (data[key] for key in ("title", "x_label", "y_label"))
    return scatter_chart(points, {group: i for i, group in enumerate(groups)}, title, x_label, y_label, title)


def ablation(gains: dict[str, list[dict[str, Any]]], worlds: Sequence[str]) -> list[Chart]:
    """A forest for each world: what every method gained in accuracy over outcome-only."""
    charts = []
    for world in worlds:
        title = f"Gain in accuracy, {WORLDS[world]}"
        charts.append(forest_chart([ForestRow(**row) for row in gains[world]], title, "difference to outcome", title))
    return charts


def quality(curves: dict[str, dict[str, list[list[float]]]]) -> list[Chart]:
    """A chart for each world: how well the scores of a run tell right steps from wrong ones, over its updates."""
    names = list(dict.fromkeys(name for contenders in curves.values() for name in contenders))
    return [
        line_chart(
            [
                Series(name, [row[0] for row in rows], [row[1] for row in rows], style=names.index(name))
                for name, rows in curves[world].items()
            ],
            f"Step AUROC on the run's own rollouts, {title}",
        )
        for world, title in WORLDS.items()
        if world in curves
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["heat-map", "ablation", "curve", "quality"])
    parser.add_argument("source", type=Path, help="the page or the data, see above")
    parser.add_argument("--out", type=Path, help="the picture's file")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=["plain", "long"], help="of `ablation`")
    args = parser.parse_args()
    out = args.out or IMAGES / f"{args.what.replace('-', '_')}.png"
    if args.what == "heat-map":
        take(args.source, "#rollouts", out, 1100, 640)
    elif args.what == "ablation":
        picture(ablation(json.loads(args.source.read_text()), args.worlds), out, 560 * len(args.worlds))
    elif args.what == "quality":
        charts = quality(json.loads(args.source.read_text()))
        picture(charts, out, 560 * len(charts))
    else:
        picture([curve(json.loads(args.source.read_text()))], out, 760)
    print(f"{out} ({out.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
