"""The window, on a display that only exists in memory (Xvfb), with keys typed by xdotool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, Optional

import pytest
from patience import PATIENCE_S, wait_for

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys, threading
import numpy as np
from rtda_deploy.spec import ModelSpec
from rtda_runtime import Overlay, Result, WindowSink

spec = ModelSpec(size_hw=(8, 8), class_names=("road",), palette=((128, 64, 128),))
ended = threading.Event()

def show():  # as a pipeline does: every call from the sink's own thread
    with WindowSink(Overlay(spec), "masks", on_quit=ended.set) as window:
        for number in range(10**6):
            frame = np.full((240, 320, 3), number % 256, np.uint8)
            spent = window.write(Result(frame, np.zeros((240, 320), np.uint8), 0, number, 0, {}, spec))
            if number == 0:
                print("shown", sorted(spent), flush=True)
            if ended.wait(0.02):
                return

thread = threading.Thread(target=show, name="rtda-window")
thread.start()
thread.join()
print("quit", ended.is_set(), flush=True)
"""


def python_with_windows() -> Optional[str]:
    """This Python, or Debian's, whose OpenCV opens windows."""
    code = "import cv2, numpy, re; print(re.search(r'GUI: *(\\w+)', cv2.getBuildInformation()).group(1))"
    for candidate in (os.environ.get("RTDA_WINDOW_PYTHON", ""), sys.executable, "/usr/bin/python3"):
        if candidate and Path(candidate).exists():
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout.strip() not in ("", "NONE"):
                return candidate
    return None


@pytest.fixture()
def display() -> Iterator[str]:
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("needs Debian's xvfb and xdotool")
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            yield f":{told.readline().strip()}"
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def test_the_window_shows_saves_and_quits(display: str, tmp_path: Path) -> None:
    python = python_with_windows()
    if python is None:
        pytest.skip("no OpenCV with windows here: Debian's python3-opencv has them")
    env = {**os.environ, "DISPLAY": display, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'runtime'}"}
    env.pop("WAYLAND_DISPLAY", None)
    said = tmp_path / "said"
    with open(said, "w") as out:
        process = subprocess.Popen([python, "-c", PROGRAM], cwd=tmp_path, env=env, stdout=out, stderr=out)
    try:
        wait_for(lambda: "shown" in said.read_text() or process.poll() is not None, "window")
        assert "shown ['overlay', 'show']" in said.read_text(), said.read_text()

        def key(name: str) -> None:
            window = subprocess.run(
                ["xdotool", "search", "--name", "masks"], env=env, capture_output=True, text=True
            ).stdout.split()
            for number in window:
                subprocess.run(["xdotool", "windowfocus", number], env=env, capture_output=True)
                subprocess.run(["xdotool", "key", "--window", number, name], env=env, capture_output=True)

        def pressed(name: str, done: Callable[[], bool]) -> bool:
            key(name)
            return done()

        wait_for(lambda: pressed("s", lambda: bool(list(tmp_path.glob("snapshot-*.png")))), "snapshot")
        wait_for(lambda: pressed("q", lambda: "quit True" in said.read_text()), "end")
        assert process.wait() == 0, said.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
