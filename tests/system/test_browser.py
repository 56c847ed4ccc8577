"""The overlay plays in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli.commandline import run_command

pytestmark = pytest.mark.system

_PAGE = """<!doctype html><meta charset="utf-8"><title>video</title>
<video id="v" src="{name}" muted preload="auto"></video><p id="p">waiting</p>
<script>
const video = document.getElementById("v"), say = text => document.getElementById("p").textContent = text;
video.onerror = () => say("error " + video.error.code + " " + video.error.message);
video.onloadeddata = () => {{ video.currentTime = video.duration / 2; }};
video.onseeked = () => say(["seen", video.readyState, video.duration, video.videoWidth, video.videoHeight].join(" "));
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
    "--virtual-time-budget=20000",
)


@pytest.mark.parametrize("name", ["o.mp4", "o.webm"])
def test_the_overlay_plays_in_chromium(tmp_path: Path, tiny_onnx: Path, name: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: apt-get install the packages of .ci/packages.txt")
    camera = "test://bars?fps=0&frames=30&size=161x97"  # odd sides, which the format has not
    made = run_command("run", tiny_onnx, "--camera", camera, "--save", name, cwd=tmp_path)
    assert made.code == 0, made.err
    (tmp_path / "page.html").write_text(_PAGE.format(name=name))
    shown = subprocess.run(
        [chromium, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<p id="p">(.*?)</p>', shown.stdout)
    assert found, shown.stderr[-2000:]
    words = found.group(1).split()
    assert words[0] == "seen", found.group(1)
    assert int(words[1]) >= 2, "HAVE_CURRENT_DATA: the frame in the middle was decoded"
    assert float(words[2]) == pytest.approx(1.0, abs=0.05), "30 frames at 30 a second"
    assert words[3:] == ["162", "98"]
