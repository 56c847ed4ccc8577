"""A real headless Chromium, driven through the DevTools protocol over two pipes; nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

import pytest
from patience import PATIENCE_S

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_FROM, _TO = 3, 4  # file handles on which Chromium reads and writes


class Browser:
    """One page of one browser, gone at the end of the ``with`` block."""

    def __init__(self, folder: Path, size_wh: Tuple[int, int] = (1280, 800), flags: Sequence[str] = ()) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("no Chromium: apt-get install the packages of .ci/packages.txt")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()

        def place_pipes() -> None:  # in the child; first out of the way of each other
            high = [fcntl.fcntl(handle, fcntl.F_DUPFD, 64) for handle in (commands, answers)]
            os.dup2(high[0], _FROM)
            os.dup2(high[1], _TO)

        self._process = subprocess.Popen(
            [program, *_FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # Python's own are not inherited anyway
            preexec_fn=place_pipes,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._held = b""
        self._count = 0
        self._session: Optional[str] = None
        self.events: List[Dict[str, Any]] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(*size_wh)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> Dict[str, Any]:
        """One command of the protocol; its result."""
        self._count += 1
        message: Dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, address: str) -> None:
        """Go there, and wait until the page with its scripts is loaded."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def scheme(self, name: str) -> None:
        """``dark`` or ``light``."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def value(self, expression: str) -> Any:
        """What JavaScript gives, promises awaited."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, expression: str, what: str = "", timeout_s: float = PATIENCE_S) -> Any:
        """Ask until the answer is true."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = self.value(expression)
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what or expression}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, as a person presses it."""
        code = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}"
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key, code=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code)

    def click(self, selector: str) -> None:
        """The left button, in the middle of an element."""
        at = self.value(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'nearest'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def complaints(self) -> List[str]:
        """What the console says: errors of scripts, blocked or missing resources."""
        self.value("1")
        said = []
        for event in self.events:
            if event.get("method") == "Log.entryAdded":
                said.append(f"{event['params']['entry']['level']}: {event['params']['entry']['text']}")
            if event.get("method") == "Runtime.exceptionThrown":
                said.append(str(event["params"]["exceptionDetails"]))
        return said

    def addresses(self) -> List[str]:
        """Every address that the page asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """The page as a PNG; ``whole``: also what is below the window's edge."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _receive(self) -> Dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            got = os.read(self._from, 1 << 20)
            assert got, "Chromium ended"
            self._held += got
        line, _, self._held = self._held.partition(b"\0")
        return dict(json.loads(line))
