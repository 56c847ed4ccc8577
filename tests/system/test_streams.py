"""Network cameras by the command line: RTSP with a password, motion JPEG over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
from cli.commandline import run_command
from runtime.streams import mjpeg_server

pytestmark = pytest.mark.system

_PYTHON = "/usr/bin/python3"  # Debian's, because its python3-gst-1.0 is for it alone
_NEEDED = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


@pytest.fixture(scope="module")
def rtsp_port() -> Iterator[str]:
    """An RTSP camera ``rtsp://user:secret@127.0.0.1:PORT/x``."""
    try:
        found = subprocess.run([_PYTHON, "-c", _NEEDED], capture_output=True, text=True, timeout=60)
    except OSError:
        pytest.skip(f"no {_PYTHON}")
    if found.returncode != 0:
        pytest.skip("GStreamer's RTSP server is not installed: apt-get install the packages of .ci/packages.txt")
    script = Path(__file__).with_name("rtsp_server.py")
    with subprocess.Popen(
        [_PYTHON, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None and server.stderr is not None
        port = server.stdout.readline().strip()
        if not port:
            server.kill()
            raise AssertionError(f"the RTSP server did not start: {server.stderr.read()}")
        yield port
        server.kill()


def test_an_rtsp_camera_behind_a_password_runs(rtsp_port: str, tiny_onnx: Path, tmp_path: Path) -> None:
    address = f"rtsp://user:secret@127.0.0.1:{rtsp_port}/x"
    outcome = run_command("run", tiny_onnx, "--camera", address, "--max-frames", "10", "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out.splitlines()[-1])
    assert summary["frames"] == 10
    assert summary["policy"] == "newest"
    assert summary["source"] == f"rtsp://user:***@127.0.0.1:{rtsp_port}/x"
    assert "160x96" in outcome.err
    assert "secret" not in outcome.out + outcome.err


def test_a_wrong_password_exits_3_and_is_not_shown(rtsp_port: str, tiny_onnx: Path) -> None:
    outcome = run_command("--verbose", "run", tiny_onnx, "--camera", f"rtsp://user:wr0ng@127.0.0.1:{rtsp_port}/x")
    assert outcome.code == 3, outcome.err
    assert "wr0ng" not in outcome.out + outcome.err
    assert outcome.said["error"] and outcome.said["fix"]


def test_an_address_that_does_not_exist_on_the_server_exits_3(rtsp_port: str, tiny_onnx: Path) -> None:
    outcome = run_command("run", tiny_onnx, "--camera", f"rtsp://user:secret@127.0.0.1:{rtsp_port}/nothing")
    assert outcome.code == 3
    assert "secret" not in outcome.err and "Traceback" not in outcome.err


def test_a_motion_jpeg_camera_runs_and_its_end_is_told(tiny_onnx: Path, tmp_path: Path) -> None:
    pictures = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    with mjpeg_server(pictures) as host:
        address = f"http://user:secret@{host}/cam.mjpg?token=hidden"
        few = run_command("run", tiny_onnx, "--camera", address, "--max-frames", "2", "--save", "o.mp4", cwd=tmp_path)
        until_lost = run_command("run", tiny_onnx, "--camera", address, "--policy", "every", cwd=tmp_path)
    assert few.code == 0, few.err
    assert "2 frames in" in few.out and "wrote o.mp4" in few.out
    assert until_lost.code == 3, until_lost.err
    assert re.search(r"\d+ frames in", until_lost.out), "what was done is summed up, then the error is told"
    assert until_lost.said["error"] and until_lost.said["fix"]
    for text in (*few[1:], *until_lost[1:]):
        assert "secret" not in text and "hidden" not in text and "Traceback" not in text
