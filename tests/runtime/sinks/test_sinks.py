"""Sinks that show and keep pictures: the window's conditions, snapshots, comparisons."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.models import PALETTE, tiny_spec

from rtda_deploy.errors import DeviceError, FileAccessError
from rtda_runtime import Overlay, Result, VideoSink, WindowSink, open_source
from rtda_runtime.sinks import MaskFolder, window
from rtda_runtime.timing import StageTimes


def _result(**changes: Any) -> Result:
    values = {"frame": np.full((48, 64, 3), 100, np.uint8), "mask": np.zeros((48, 64), np.uint8)}
    return Result(**{**values, **changes}, captured_ns=0, sequence=7, dropped=0, timing={}, spec=tiny_spec())


@pytest.fixture()
def no_display(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return monkeypatch


def test_who_closes_a_recording_again_waits_until_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer: Any = pytest.importorskip("mcap.writer", reason="recordings need mcap").Writer
    from rtda_runtime.sinks.publish.mcap import McapSink

    sink = McapSink(tmp_path / "drive.mcap", tiny_spec(), name="front")
    sink.write(_result())
    finishing, release, finish = threading.Event(), threading.Event(), writer.finish

    def slowly(self: Any) -> None:
        finishing.set()
        assert release.wait(PATIENCE_S)
        finish(self)

    monkeypatch.setattr(writer, "finish", slowly)
    first, second = threading.Thread(target=sink.close), threading.Thread(target=sink.close)
    first.start()
    assert finishing.wait(PATIENCE_S)
    second.start()
    second.join(0.2)
    assert second.is_alive() and not (tmp_path / "drive.mcap").exists()
    release.set()
    for closing in (first, second):
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
    assert (tmp_path / "drive.mcap").exists()


def test_a_window_needs_a_display(no_display: Any) -> None:
    with pytest.raises(DeviceError, match="no display here") as caught:
        WindowSink(Overlay(tiny_spec()))
    assert "--view auto" in caught.value.hint and caught.value.exit_code == 3


def test_a_window_needs_an_opencv_with_windows(no_display: Any) -> None:
    no_display.setenv("DISPLAY", ":0")
    no_display.setattr(cv2, "getBuildInformation", lambda: "\n  GUI:                           NONE\n")
    with pytest.raises(DeviceError, match="opens no windows") as caught:
        WindowSink(Overlay(tiny_spec()))
    assert "pip install opencv-python" in caught.value.hint


@pytest.mark.parametrize("display", [":4711", "nonsense", "127.0.0.1:59000"])
def test_a_display_that_does_not_answer_is_found_out_before_the_library_ends_the_process(
    no_display: Any, display: str
) -> None:
    no_display.setenv("DISPLAY", display)
    no_display.setattr(cv2, "getBuildInformation", lambda: "\n  GUI:                           QT5\n")
    with pytest.raises(DeviceError, match=f"nothing answers on display {display}"):
        window.check_display()


def test_a_display_that_answers_is_taken(no_display: Any, tmp_path: Path) -> None:
    no_display.setenv("DISPLAY", ":7.0")
    no_display.setattr(cv2, "getBuildInformation", lambda: "\n  GUI:                           QT5\n")
    no_display.setattr(window, "_X_SOCKETS", tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "X7"))
        server.listen()
        window.check_display()


def test_snapshots_carry_the_number_of_their_frame(tmp_path: Path) -> None:
    result = _result()
    path = window.save_snapshot(result.frame, result, tmp_path)
    assert path.name == "snapshot-000007.png"
    np.testing.assert_array_equal(cv2.imread(str(path)), result.frame)
    with pytest.raises(FileAccessError):
        window.save_snapshot(result.frame, result, path)


# Two networks


def _compared() -> Result:
    return _result(mask=np.zeros((48, 64), np.uint8), compared=np.full((48, 64), 3, np.uint8))


def test_two_masks_stand_side_by_side() -> None:
    picture = Overlay(tiny_spec(), alpha=1.0, legend=False).draw_result(_compared())
    assert picture.shape == (48, 128, 3)
    assert (picture[:, :64] == PALETTE[0][::-1]).all() and (picture[:, 64:] == PALETTE[3][::-1]).all()


def test_titles_stand_below_the_masks_and_each_has_its_legend() -> None:
    spec = tiny_spec()
    result = _result(
        frame=np.full((540, 960, 3), 100, np.uint8),
        mask=np.zeros((540, 960), np.uint8),
        compared=np.full((540, 960), 3, np.uint8),
    )
    plain = Overlay(spec, legend=False).draw_result(result)
    titled = Overlay(spec, legend=False, titles=("source-only", "adapted")).draw_result(result)
    for half in (slice(0, 960), slice(960, 1920)):
        rows = np.flatnonzero((plain[:, half] != titled[:, half]).any(axis=(1, 2)))
        assert rows.min() > 480, "below"
    legends = Overlay(spec, alpha=0.5).draw_result(result)
    assert (legends[:200, :200] != plain[:200, :200]).any() and (legends[:200, 960:1160] != plain[:200, 960:1160]).any()


def test_a_picture_of_two_is_drawn_into_out() -> None:
    result, overlay = _compared(), Overlay(tiny_spec())
    out = np.empty((48, 128, 3), np.uint8)
    assert overlay.draw_result(result, out=out) is out
    np.testing.assert_array_equal(out, overlay.draw_result(result))


def test_a_video_of_two_is_twice_as_wide(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    with VideoSink(tmp_path / "o.mp4", 25, overlay=Overlay(tiny_spec())) as sink:
        for _ in range(3):
            sink.write(_compared())
    with open_source(tmp_path / "o.mp4") as source:
        assert source.size_wh == (128, 48)


# Names and promises


def test_what_must_not_be_lost_says_so(tmp_path: Path) -> None:
    assert VideoSink.keeps and MaskFolder.keeps and not WindowSink.keeps
    assert (VideoSink.name, MaskFolder.name, WindowSink.name) == ("video", "masks", "window")


def test_copies_of_results_have_everything() -> None:
    result = _result(compared=np.ones((48, 64), np.uint8), confidence=np.full((48, 64), 9, np.uint8))
    twin = result.copy()
    for name in ("frame", "mask", "compared", "confidence"):
        assert not np.shares_memory(getattr(twin, name), getattr(result, name))
        np.testing.assert_array_equal(getattr(twin, name), getattr(result, name))
    assert _result().copy().compared is None


def test_times_may_be_added_and_asked_for_by_several_threads() -> None:
    times, wrong = StageTimes(kept=64), []  # type: ignore[var-annotated]

    def add() -> None:
        for _ in range(2000):
            times.add({"infer": 2.0, "encode": 3.0})

    def ask() -> None:
        for _ in range(100):
            for stage, value in (("infer", 2.0), ("encode", 3.0)):
                found = times.summary().get(stage)
                if found is not None and (found["p50"], found["mean"], found["max"]) != (value, value, value):
                    wrong.append(found)

    threads = [threading.Thread(target=work) for work in (add, add, ask)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not wrong and times.summary()["infer"]["count"] == 4000
