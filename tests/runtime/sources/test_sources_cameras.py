"""``rtda-deploy cameras``: what is plugged in, who may open it, what it looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import cv2
import pytest

import rtda_runtime
from rtda_deploy.cli.cameras import cameras
from rtda_deploy.errors import CameraError
from rtda_runtime.sources import BarsSource, CameraInfo, Source

GOOD = CameraInfo("/dev/video0", "USB Camera", "/dev/v4l/by-id/usb-cam", permitted=True, main=True, group="video")
METADATA = CameraInfo("/dev/video1", "USB Camera", None, permitted=True, main=False, group="video")
CLOSED = CameraInfo("/dev/video2", "Other", None, permitted=False, main=True, group="plugdev")


@pytest.fixture()
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make these the cameras of this machine; the permitted ones show colour bars."""
    opened: List[str] = []

    def open_source(path: str) -> Source:
        opened.append(path)
        if path == CLOSED.path:
            raise CameraError("no permission to open camera /dev/video2")
        source = BarsSource(size_wh=(64, 48))
        source.granted = {"size": "64x48", "format": "MJPG"}
        return source

    def plug_in_(*found: CameraInfo) -> List[str]:
        monkeypatch.setattr(rtda_runtime, "cameras", lambda: list(found), raising=False)
        monkeypatch.setattr(rtda_runtime, "open_source", open_source, raising=False)
        return opened

    return plug_in_


def test_the_name_that_stays_is_the_one_to_type(plug_in: Any, capsys: Any) -> None:
    opened = plug_in(GOOD, METADATA)
    cameras(stills=None, json_=False)
    shown = "".join(capsys.readouterr())
    assert "metadata" in shown
    assert "rtda-deploy run --camera /dev/v4l/by-id/usb-cam" in shown
    assert opened == [], "listing opens nothing"


def test_a_closed_camera_names_its_group(plug_in: Any, capsys: Any) -> None:
    plug_in(GOOD, CLOSED)
    cameras(stills=None, json_=False)
    shown = "".join(capsys.readouterr())
    assert "no: group plugdev" in shown and "sudo usermod -aG plugdev" in shown


def test_stills_are_saved_of_what_gives_pictures_and_the_rest_says_why_not(
    plug_in: Any, capsys: Any, tmp_path: Path
) -> None:
    opened = plug_in(GOOD, METADATA, CLOSED)
    cameras(stills=tmp_path / "stills", json_=True)
    listed = json.loads(capsys.readouterr().out)["cameras"]
    still = tmp_path / "stills" / "video0.png"
    assert listed[0]["still"] == str(still) and listed[0]["granted"] == {"size": "64x48", "format": "MJPG"}
    assert cv2.imread(str(still)).shape == (48, 64, 3)
    assert "still" not in listed[1]
    assert listed[2]["still"] is None and "no permission" in listed[2]["says"]
    assert opened == ["/dev/video0", "/dev/video2"]


def test_a_folder_that_cannot_be_written_is_said_and_the_list_still_shown(
    plug_in: Any, capsys: Any, tmp_path: Path
) -> None:
    plug_in(GOOD)
    (tmp_path / "file").touch()
    cameras(stills=tmp_path / "file", json_=True)
    listed = json.loads(capsys.readouterr().out)["cameras"]
    assert listed[0]["still"] is None and listed[0]["path"] == "/dev/video0"
