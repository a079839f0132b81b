"""Our pages in a real Chromium, driven by Playwright: what they ask for, what they complain of, what is drawn."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import pictures
from pictures import chromium, executable

sys.path.pop(0)

__all__ = ["Tab", "chromium", "needs_chromium", "opened", "pictures"]

needs_chromium = pytest.mark.skipif(
    executable() is None, reason="needs an installed Chromium (Debian: apt-get install chromium), or RLHF_PRM_CHROMIUM"
)
PIXELS = """(canvas, colour) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] === 255 && colour.every((value, c) => Math.abs(data[i + c] - value) < 6)) count += 1;
  return count;
}"""


class Tab:
    """A page that was opened, and what it did: ``complaints`` and ``requests``, as they come."""

    def __init__(self, page: Page):
        self.page, self.complaints, self.requests = page, [], []
        page.on("console", lambda told: told.type in ("error", "warning") and self.complaints.append(told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def draw_all(self) -> int:
        """Draw every chart, as for a printer; how many there are."""
        self.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        count = self.page.locator(".plot").count()
        self.settled(count)
        return count

    def settled(self, least: int = 1) -> None:
        """Wait until at least so many charts are drawn, none is being drawn, and the last is painted."""
        drawn = f"Bokeh.documents.length >= {least} && Bokeh.documents.every((drawn) => drawn.is_idle)"
        self.page.wait_for_function(drawn)
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def drawn(self, plot: Locator) -> Locator:
        """The chart, once it is drawn and in the middle of the window."""
        plot.evaluate("(element) => element.scrollIntoView({block: 'center'})")
        plot.locator(".bk-CartesianFrame").wait_for(state="attached")
        self.settled()
        return plot

    def point_at(self, element: Locator) -> None:
        """Move the mouse there, once the page stands still: tooltips go when it moves."""
        element.scroll_into_view_if_needed()
        self.settled()
        element.hover()

    def pixels(self, plot: Locator, colour: tuple[int, int, int]) -> int:
        """How many pixels of the chart's canvas have the colour."""
        self.settled()
        return plot.locator("canvas.bk-layer:not(.bk-glyph)").first.evaluate(PIXELS, colour)

    def hover(self, plot: Locator, across: float, down: float) -> str:
        """The tooltip of the chart with the mouse at this share of the plotting area."""
        box = plot.locator(".bk-CartesianFrame").bounding_box()
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        self.page.mouse.move(x - 3, y)
        self.page.mouse.move(x, y)
        self.settled()
        rows = self.page.locator(".bk-Tooltip .bk-tooltip-row-value").filter(visible=True)
        rows.first.wait_for()
        return "\n".join(text.strip() for text in rows.all_text_contents())


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, **options) -> Iterator[Tab]:
    """A tab without a network, with the page in it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
    tab = Tab(context.new_page())
    tab.page.goto(path.resolve().as_uri())
    yield tab
    context.close()
