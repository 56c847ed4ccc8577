"""The overlay plays in a real browser, from its first frame to its last."""

from __future__ import annotations

import http.server
import os
import queue
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, List
from urllib.parse import unquote

import pytest
from cli.commandline import run_command
from patience import PATIENCE_S

pytestmark = pytest.mark.system

_PAGE = """<!doctype html><meta charset="utf-8"><title>video</title><video id="v" src="{name}" muted></video>
<script>
const video = document.getElementById("v");
const say = words => fetch("said?" + encodeURIComponent(words.join(" ")));
video.onerror = () => say(["error", video.error.code, video.error.message]);
video.onended = () => say(["ended", video.currentTime, video.duration, video.videoWidth, video.videoHeight,
  video.getVideoPlaybackQuality().totalVideoFrames]);
video.play().catch(error => say(["error", error]));
</script>
"""
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
    "--autoplay-policy=no-user-gesture-required",
)


def told_by_browser(chromium: str, folder: Path, page: str) -> List[str]:
    """What the page says through ``fetch("said?...")``; everything stays on 127.0.0.1."""
    said: queue.Queue[str] = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            if self.path.startswith("/said?"):
                said.put(unquote(self.path[6:]))
                self.send_response(204)
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{page}"
        browser = subprocess.Popen(
            [chromium, *_FLAGS, f"--user-data-dir={folder / 'profile'}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return said.get(timeout=PATIENCE_S).split()
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait(PATIENCE_S)
            server.shutdown()


@pytest.mark.parametrize("name", ["o.mp4", "o.webm"])
def test_the_overlay_plays_in_chromium(tmp_path: Path, tiny_onnx: Path, name: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install the packages of .ci/packages.txt")
    camera = "test://bars?fps=0&frames=30&size=161x97"  # odd sides, which the format has not
    made = run_command("run", tiny_onnx, "--camera", camera, "--save", name, cwd=tmp_path)
    assert made.code == 0, made.err
    (tmp_path / "page.html").write_text(_PAGE.format(name=name))
    words = told_by_browser(chromium, tmp_path, "page.html")
    assert words[0] == "ended", words
    played_s, duration_s = float(words[1]), float(words[2])
    assert duration_s == pytest.approx(1.0, abs=0.05), "30 frames at 30 a second"
    assert played_s == pytest.approx(duration_s, abs=0.05)
    assert words[3:5] == ["162", "98"]
    assert int(words[5]) > 0, "frames were decoded"
