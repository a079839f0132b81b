"""The README's pictures, taken from a real run and a real ablation.

python -m tests.report.pictures RUN/report.html ABLATION/report.html      writes docs/images/{heat_map,ablation}.png
"""

import sys
import tempfile
from pathlib import Path

from tests.report.browser import Browser

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def take(page: Path, selector: str, out: Path, width: int, height: int) -> None:
    """The window from the top of the first element that matches."""
    browser = Browser(Path(tempfile.mkdtemp()), width, height)
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1.5, mobile=False)
    browser.open(page)
    browser.scheme("light")
    browser.js(f"document.querySelector({selector!r}).scrollIntoView()")
    out.parent.mkdir(parents=True, exist_ok=True)
    browser.screenshot(out)
    browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), "#rollouts", IMAGES / "heat_map.png", 1100, 640)
    take(Path(sys.argv[2]), "#group0", IMAGES / "ablation.png", 1100, 460)
