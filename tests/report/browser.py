"""A real Chromium, spoken to over its DevTools pipe: no driver, no port, no library."""

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """Where Chromium is; RLHF_PRM_CHROMIUM comes before the usual names."""
    return os.environ.get("RLHF_PRM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. ``events`` holds everything the page reported: exceptions, console entries, requests."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900):
        to_browser, from_browser = os.pipe(), os.pipe()

        def give_pipes() -> None:  # Chromium reads commands from 3 and answers on 4
            os.dup2(to_browser[0], 30)
            os.dup2(from_browser[1], 31)
            os.dup2(30, 3)
            os.dup2(31, 4)

        command = [executable(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        self.process = subprocess.Popen(
            command, preexec_fn=give_pipes, close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        self.write_to, self.read_from, self.buffer = to_browser[1], from_browser[0], b""
        self.number, self.events, self.session = 0, [], None
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """One DevTools command and its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, seconds: float = 60.0) -> dict:
        while b"\0" not in self.buffer:
            if not select.select([self.read_from], [], [], seconds)[0]:
                raise TimeoutError(f"Chromium said nothing for {seconds} s")
            self.buffer += os.read(self.read_from, 1 << 20)
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Load a local file and wait for its load event."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def js(self, expression: str):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def hover(self, selector: str) -> None:
        """Move the mouse to the middle of the first element that matches, once scrolling to it is over."""
        self.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        self.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
        x, y = self.js(
            f"(b => [b.left + b.width / 2, b.top + b.height / 2])"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press and release a key such as Tab or ArrowDown."""
        codes = {"Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}
        codes |= {"ArrowLeft": 37, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def scheme(self, name: str) -> None:
        """``light`` or ``dark``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))

    def complaints(self) -> list[str]:
        """Exceptions, console errors and warnings of the page so far."""
        told = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                told.append(json.dumps(parameters["exceptionDetails"])[:300])
            if method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                told.append(parameters["entry"]["text"])
            if method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
                told.append(json.dumps(parameters["args"])[:300])
        return told

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self.write_to)
        os.close(self.read_from)
