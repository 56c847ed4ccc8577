"""Videos as recordings: the very frames that were written, with their times, whichever way a frame is reached."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from runtime.sources.footage.videos import number_of, numbers_of, write_video
from runtime.streams import read_frames

from rtda_runtime.sources import open_source
from rtda_runtime.sources.footage.base import Recording
from rtda_runtime.sources.footage.video import open_video_recording

COUNT = 130  # enough for jumps inside the file
REORDERED = {"g": "10", "bf": "2"}
VIDEOS: Dict[str, Dict[str, Any]] = {
    "drive.mp4": {"options": REORDERED},
    "drive.mkv": {"options": {**REORDERED, "x264-params": "open-gop=1"}},
    "drive.mov": {"codec": "libx265"},
    "drive.avi": {"codec": "mpeg4", "options": REORDERED},
    "drive.ts": {"options": {**REORDERED, "x264-params": "open-gop=1"}},
    "drive.webm": {"codec": "libvpx-vp9", "options": {"g": "10", "cpu-used": "8", "deadline": "realtime"}},
    "drive.mpg": {"codec": "mpeg2video", "options": REORDERED},
    "jpegs.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "reordered.avi": {"options": REORDERED},
    "bare.h264": {"options": REORDERED, "container": "h264"},
    "in order.h264": {"options": {"g": "10", "bf": "0"}, "container": "h264"},
    "refreshed.ts": {"options": {"bf": "0", "x264-params": "intra-refresh=1:keyint=12:scenecut=0"}},
    "no keys.avi": {"codec": "h263p"},
    "bgr.avi": {"codec": "rawvideo", "pixels": "bgr24"},
    "rgb.mov": {"codec": "qtrle", "pixels": "rgb24", "options": {"g": "10"}},
}


@pytest.fixture(scope="module", params=list(VIDEOS))
def video(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / request.param, count=COUNT, **VIDEOS[request.param])


def test_it_gives_the_frames_that_were_written_at_their_times(video: Path) -> None:
    recording = open_video_recording(video, None)
    frames = list(recording.frames(range(COUNT)))
    assert recording.num_frames == COUNT and recording.size_wh == (96, 64)
    assert numbers_of([frame.image for frame in frames]) == [frame.number for frame in frames] == list(range(COUNT))
    assert [round(frame.time_ns / 1e6) for frame in frames] == [40 * number for number in range(COUNT)]
    assert [frame.stamp_ns for frame in frames] == [frame.time_ns for frame in frames] == list(recording.times_ns)
    assert recording.damaged == 0 and recording.keys[0]


def test_a_frame_has_the_same_pixels_whichever_way_it_was_reached(video: Path) -> None:
    recording = open_video_recording(video, None)
    whole = [frame.image for frame in recording.frames(range(COUNT))]
    chance = np.random.default_rng(1)
    some = [sorted(chance.choice(COUNT, size, replace=False)) for size in (2, 3, 5, 8, 13)]
    for numbers in [
        [COUNT - 1],
        [0, COUNT - 1],
        list(np.flatnonzero(recording.keys)),
        *some,
        *([one] for one in range(1, COUNT, 23)),
    ]:
        _assert_same(recording, numbers, whole)


def test_it_has_the_pixels_of_the_film(video: Path) -> None:
    recording = open_video_recording(video, None)
    with open_source(video) as film:
        shown = [frame.image for frame in read_frames(film)]
    _assert_same(recording, range(COUNT), shown)


def test_opencv_gives_the_same_frames_where_pyav_is_missing(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    recording = open_video_recording(video, None)
    frames = list(recording.frames([0, 3, 4, 120]))
    assert [number_of(frame.image) for frame in frames] == [frame.number for frame in frames] == [0, 3, 4, 120]
    assert recording.num_frames == COUNT and recording.size_wh == (96, 64) and recording.keys.sum() == 1
    assert "OpenCV" in recording.notes[0]


def _assert_same(recording: Recording, numbers: Any, whole: Any) -> None:
    found = list(recording.frames(numbers))
    assert [frame.number for frame in found] == list(numbers)
    for frame in found:
        np.testing.assert_array_equal(frame.image, whole[frame.number])
