"""A headless Chromium, driven over its DevTools protocol: enough to look at a page and click."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--disable-dev-shm-usage"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-port=0"),
    *("--window-size=1280,800", "--no-first-run", "--disable-background-networking"),
)


class Page:
    """One page. Every call waits for its answer."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._calls = socket, 0

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> Any:
        """What the script gives once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} stayed {value!r}"
            time.sleep(0.1)
        return value

    def click(self, label: str) -> None:
        """Click the button that says `label`."""
        self.wait_for(
            "(() => { const b = [...document.querySelectorAll('button')]"
            f".find(b => b.textContent.trim() === {json.dumps(label)});"
            " if (b) b.click(); return !!b; })()"
        )

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        return path


@contextmanager
def open_page(url: str, folder: Path) -> Iterator[Page]:
    """The page at `url`; `folder` holds the browser's profile."""
    from urllib.request import urlopen

    from websockets.sync.client import connect

    assert CHROMIUM is not None
    profile = folder / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            port = _port_in(profile / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Page(socket)
        finally:
            browser.terminate()


def _port_in(file: Path) -> int:
    """The port Chromium chose, once it wrote it down."""
    for _ in range(600):
        if file.exists() and (text := file.read_text().split()):
            return int(text[0])
        time.sleep(0.1)
    raise AssertionError("Chromium did not start")
