"""Ctrl-C ends in order, and kill -9 leaves nothing broken behind."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Callable, Tuple

import pytest
from cli.commandline import files_below
from system.conftest import Process, tiny_training

pytestmark = pytest.mark.system

Start = Callable[..., Process]


def saved_step(path: Path) -> int:
    from rtda_training.checkpoint import read_checkpoint

    return int(read_checkpoint(path).training["step"])


def test_ctrl_c_ends_a_training_in_order_and_a_second_run_goes_on(
    start: Start, tmp_path: Path, tiny_data: Path
) -> None:
    words = tiny_training(tiny_data, "run", "steps=1000")
    first = start(*words)
    last = tmp_path / "run/last.pth"  # the first is written before the first step, and is taken back if none is made
    first.wait_until(lambda: last.exists() and saved_step(last) >= 1, "checkpoint of a step")
    first.send(signal.SIGINT)
    stopped = first.end()
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err and "stopped" in stopped.err
    assert not [name for name in files_below(tmp_path) if ".part" in name]
    reached = saved_step(tmp_path / "run/last.pth")
    assert reached >= 1

    second = start(*words, "--resume", "auto")
    second.wait_until(lambda: f"resumed at step {reached}" in second.err, "word that it resumed")
    before = (tmp_path / "run/last.pth").stat().st_mtime_ns
    second.wait_until(lambda: (tmp_path / "run/last.pth").stat().st_mtime_ns != before, "new checkpoint")
    second.send(signal.SIGINT)
    assert second.end().code == 130
    assert saved_step(tmp_path / "run/last.pth") > reached


def test_a_training_killed_while_it_writes_leaves_a_checkpoint_that_resumes(
    start: Start, tmp_path: Path, tiny_data: Path
) -> None:
    words = tiny_training(tiny_data, "run", "steps=1000")
    first = start(*words)
    first.wait_until((tmp_path / "run/last.pth").exists, "checkpoint")
    first.wait_until(lambda: bool(list((tmp_path / "run").glob(".last.*"))), "second checkpoint being written")
    first.send(signal.SIGKILL)
    assert first.end().code == -signal.SIGKILL
    reached = saved_step(tmp_path / "run/last.pth")
    second = start(*words, "--resume", "auto")
    second.wait_until(lambda: f"resumed at step {reached}" in second.err, "word that it resumed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_summary_and_a_whole_video(
    start: Start, tmp_path: Path, tiny_onnx: Path, number: signal.Signals, code: int
) -> None:
    import cv2

    camera = "test://bars?fps=60&size=96x64"
    process = start("run", tiny_onnx, "--camera", camera, "--save", "o.mp4", "--masks", "masks")
    process.wait_until(lambda: len(list((tmp_path / "masks").glob("*.png"))) > 20, "20 masks")
    process.send(number)
    ended = process.end()
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    found = re.search(r"(\d+) frames in .* wrote o\.mp4, masks", ended.out)
    assert found, ended.out
    video = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    count = 0
    while video.grab():
        count += 1
    assert count == int(found.group(1)), "every frame so far is in it"
    assert not [name for name in files_below(tmp_path) if ".part" in name]


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [
        (signal.SIGINT, (0.15, signal.SIGINT), 130),
        (signal.SIGINT, (0.05, signal.SIGTERM), 130),
        (signal.SIGTERM, (0.05, signal.SIGINT), 143),
    ],
)
def test_a_second_signal_does_not_break_the_film_that_is_being_finished(
    start: Start, tmp_path: Path, tiny_onnx: Path, first: int, then: Tuple[float, int], code: int
) -> None:
    import cv2

    words = ("--camera", "test://bars?size=1920x1080", "--save", "o.mp4", "--masks", "masks", "--policy", "every")
    process = start("run", tiny_onnx, *words)
    process.wait_until(lambda: len(list((tmp_path / "masks").glob("*.png"))) > 20, "20 masks")
    process.send(first)
    time.sleep(then[0])
    process.send(then[1])
    ended = process.end()
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    found = re.search(r"(\d+) frames in .* wrote o\.mp4, masks", ended.out)
    assert found, ended.out
    video = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    count = 0
    while video.grab():
        count += 1
    assert count == int(found.group(1))
    assert not [name for name in files_below(tmp_path) if ".part" in name]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_waits_for_its_first_frame(
    start: Start, tmp_path: Path, tiny_onnx: Path, number: signal.Signals, code: int
) -> None:
    camera = "test://bars?fps=0.01&size=96x64"
    process = start("run", tiny_onnx, "--camera", camera, "--save", "o.mp4", "--view", "auto", "--json")
    process.wait_until(lambda: "view " in process.err, "first lines")
    process.send(number)
    ended = process.end()
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    left = [name for name in files_below(tmp_path) if name not in (".stdout", ".stderr")]
    assert left in ([], ["o.mp4"]), f"a frame may have come before: {ended.err}"


def test_ctrl_c_before_anything_runs_is_in_order_too(start: Start, tmp_path: Path, tiny_onnx: Path) -> None:
    process = start("bench", tiny_onnx, "--duration", "60")
    process.wait_until(lambda: "measure" in process.err, "first line")
    process.send(signal.SIGINT)
    ended = process.end()
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err


def test_a_killed_run_leaves_no_video_under_its_name(start: Start, tmp_path: Path, tiny_onnx: Path) -> None:
    (tmp_path / "o.mp4").write_bytes(b"old")
    process = start(
        "run", tiny_onnx, "--camera", "test://bars?fps=60&size=96x64", "--save", "o.mp4", "--masks", "masks"
    )
    process.wait_until(lambda: bool(list((tmp_path / "masks").glob("*.png"))), "first mask")
    process.send(signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    assert (tmp_path / "o.mp4").read_bytes() == b"old"
