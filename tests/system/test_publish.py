"""Publishing from the command line: what Ctrl-C and kill -9 leave behind."""

from __future__ import annotations

import base64
import json
import re
import signal
from pathlib import Path
from typing import Callable, Dict, List

import cv2
import numpy as np
import pytest
from cli.commandline import files_below
from runtime.models import write_model
from runtime.publish_clients import FoxgloveClient, image_of_protobuf
from system.conftest import Process

pytestmark = pytest.mark.system

Start = Callable[..., Process]
_CAMERA = "test://bars?size=640x480"


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.onnx")


def _parts(folder: Path) -> List[Path]:
    return [folder / name for name in files_below(folder) if ".part" in name]


def _recorded(process: Process, folder: Path, size_b: int) -> None:
    process.wait_until(lambda: any(path.stat().st_size > size_b for path in _parts(folder)), f"{size_b} bytes recorded")


def test_a_recording_stopped_by_ctrl_c_plays(start: Start, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("mcap", reason="mcap is not installed")
    from mcap.reader import make_reader

    process = start("run", model, "--camera", _CAMERA, "--publish", "mcap:drive.mcap")
    _recorded(process, tmp_path, 1 << 20)
    process.send(signal.SIGINT)
    ended = process.end()
    assert ended.code == 130 and "Traceback" not in ended.err, ended.err
    assert _parts(tmp_path) == []
    counts: Dict[str, int] = {}
    stamps: List[int] = []
    with (tmp_path / "drive.mcap").open("rb") as stream:
        for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
            if channel.topic == "/rtda/mask":
                stamps.append(message.log_time)
                content = np.frombuffer(base64.b64decode(json.loads(message.data)["data"]), np.uint8)
                assert cv2.imdecode(content, cv2.IMREAD_UNCHANGED).shape == (480, 640)
    assert counts["/rtda/mask"] == counts["/rtda/overlay"] == counts["/rtda/statistics"] > 1
    assert counts["/rtda/labels"] == 1 and counts["/rtda/state"] >= 1
    assert stamps == sorted(set(stamps))


def test_a_recording_that_was_killed_leaves_what_can_be_recovered(start: Start, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("mcap", reason="mcap is not installed")
    from mcap.exceptions import EndOfFile, McapError
    from mcap.reader import NonSeekingReader

    process = start("run", model, "--camera", _CAMERA, "--publish", "mcap:drive.mcap")
    _recorded(process, tmp_path, 2 << 20)
    process.send(signal.SIGKILL)
    process.end()
    assert not (tmp_path / "drive.mcap").exists()
    (left,) = _parts(tmp_path)
    assert re.fullmatch(r"\.drive\..*\.part\.mcap", left.name)
    masks = 0
    with left.open("rb") as stream, pytest.raises((EndOfFile, McapError)):
        for _, channel, _ in NonSeekingReader(stream).iter_messages(log_time_order=False):
            masks += channel.topic == "/rtda/mask"
    assert masks > 1


def test_foxglove_watches_a_run(start: Start, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("foxglove", reason="foxglove-sdk is not installed")
    pytest.importorskip("websockets", reason="the test's client needs websockets")
    process = start("run", model, "--camera", _CAMERA, "--publish", "foxglove://127.0.0.1:0")
    process.wait_until(lambda: "ws://127.0.0.1:" in process.err, "address")
    url = re.search(r"ws://127\.0\.0\.1:\d+", process.err)
    assert url is not None
    client = FoxgloveClient(url[0])
    client.subscribe("/rtda/mask")
    stamps = []
    for log_ns, payload in client.messages("/rtda/mask", 3):
        stamp_ns, _, content = image_of_protobuf(payload)
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED).shape == (480, 640)
        assert stamp_ns == log_ns
        stamps.append(stamp_ns)
    assert stamps == sorted(set(stamps))
    client.close()
    process.send(signal.SIGINT)
    ended = process.end()
    assert ended.code == 130 and "Traceback" not in ended.err, ended.err
