"""Chromium without a window, by the DevTools protocol over a pipe: no library and no port.

The browser is Debian's. It runs in a profile of its own and may ask nobody but the pages under test: every request is
recorded, and so is what the console says.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from helpers.servers.debian import need

Json = Any
CHROMIUM = Path("/usr/bin/chromium")

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Page:
    """One tab.

    Attributes:
        requests: the URL of every request.
        complaints: what the console was told, exceptions that nobody caught, and what the policy refused.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def call(self, method: str, **params: Json) -> Json:
        """A command of the protocol, and its result."""
        return self._browser.call(method, session=self._session, **params)

    def open(self, url: str) -> None:
        """Go there, and wait until the document is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Json:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, script: str, *, timeout: float = 20) -> Json:
        """The value of an expression once it is true."""
        end = time.monotonic() + timeout
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {script}; {self.complaints}")
            time.sleep(0.03)
        return value

    def press(self, key: str, *, text: str = "") -> None:
        """Press and release one key, as a person would."""
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "/": 191}
        typed = {"text": text or {"Enter": "\r", "/": "/"}.get(key, "")}
        event = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **(typed if typed["text"] else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window and the colours that are preferred."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def allow_clipboard(self, url: str) -> None:
        """Let the page at this address use the clipboard, as a click on "Allow" would."""
        wanted = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self._browser.call("Browser.grantPermissions", permissions=wanted, origin=url.rstrip("/"))

    def close(self) -> None:
        """Close the tab."""
        self._browser.forget(self._session)

    def screenshot(self, file: Path) -> None:
        """What is to be seen, as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """A running Chromium; `browser` makes one."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._process = _start(theirs_in, theirs_out, folder, env)
        os.close(theirs_in)
        os.close(theirs_out)
        self._write = os.fdopen(ours_out, "wb", buffering=0)
        self._read = os.fdopen(ours_in, "rb", buffering=0)
        self._number = 0
        self._answers: dict[int, Json] = {}
        self._pages: dict[str, Page] = {}
        self._targets: dict[str, str] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def page(self) -> Page:
        """A new tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        self._targets[session] = target
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, *, session: str = "", **params: Json) -> Json:
        """A command of the protocol, and its result."""
        with self._changed:
            self._number += 1
            number = self._number
            message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
            self._write.write(json.dumps(message).encode() + b"\0")
            if not self._changed.wait_for(lambda: number in self._answers or self._ended, timeout=60):
                raise AssertionError(f"Chromium does not answer: {method}")
            answer = self._answers.pop(number, {"error": "Chromium has ended"})
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def forget(self, session: str) -> None:
        """Close a tab."""
        del self._pages[session]
        self.call("Target.closeTarget", targetId=self._targets.pop(session))

    def close(self) -> None:
        """End it, and everything it has started."""
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        self._write.close()
        self._read.close()

    def _listen(self) -> None:
        rest = b""
        while chunk := self._read.read(1 << 20):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in messages:
                self._heard(json.loads(message))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _heard(self, message: Json) -> None:
        if "id" in message:
            with self._changed:
                self._answers[message["id"]] = message
                self._changed.notify_all()
        page = self._pages.get(message.get("sessionId", ""))
        report = _REPORTS.get(message.get("method", ""))
        if page is not None and report is not None:
            report(page, message["params"])


def _asked(page: Page, params: Json) -> None:
    page.requests.append(params["request"]["url"])


def _complained(page: Page, params: Json) -> None:
    page.complaints.append(json.dumps(params))


_REPORTS: dict[str, Callable[[Page, Json], None]] = {
    "Network.requestWillBeSent": _asked,
    "Runtime.consoleAPICalled": _complained,
    "Runtime.exceptionThrown": _complained,
    "Log.entryAdded": _complained,
}


def _start(theirs_in: int, theirs_out: int, folder: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Chromium reads commands from descriptor 3 and writes answers to 4; a shell puts ours there."""
    program = shutil.which("chromium") or str(CHROMIUM)
    command = [program, f"--user-data-dir={folder}", *_ARGUMENTS, "about:blank"]
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
    return subprocess.Popen(
        ["/bin/bash", "-c", script, "bash", *command],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder), **(env or {})},
        start_new_session=True,
    )


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that is closed in the end. Skips where there is no Chromium and none may be installed."""
    need("chromium", test=CHROMIUM)
    with TemporaryDirectory(prefix="ls-chromium-", ignore_cleanup_errors=True) as folder:
        found = Browser(Path(folder))
        try:
            yield found
        finally:
            found.close()
