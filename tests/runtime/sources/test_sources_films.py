"""Films: how they are turned, when each frame is shown, what is damaged in them, and what they are called."""

from __future__ import annotations

import contextlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import av
import cv2
import numpy as np
import pytest
from runtime.fakes import NumpyEngine
from runtime.sources.footage.videos import turned
from runtime.streams import byte_server, read_frames

from rtda_deploy.errors import CameraError, FrameError, MissingPackageError
from rtda_runtime import Pipeline, Segmenter, VideoSink
from rtda_runtime.sources import Source, feeds, open_source
from rtda_runtime.sources.kinds import source_files
from rtda_runtime.sources.stream import StreamSource

CORNERS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
]  # BGR: top left, top right, bottom left, bottom right
UNEVEN_MS = [0, 33, 67, 400, 1500, 1533, 2740]


def _corners() -> np.ndarray:
    picture = np.zeros((64, 96, 3), np.uint8)
    for number, colour in enumerate(CORNERS):
        picture[32 * (number // 2) :][:32, 48 * (number % 2) :][:, :48] = colour
    return picture


def _write(path: Path, pictures: Sequence[np.ndarray], times_ms: Optional[Sequence[int]] = None) -> Path:
    height, width = pictures[0].shape[:2]
    with av.open(f"file:{path}", "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@contextlib.contextmanager
def _opened(path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """By ``pyav``, by ``opencv``, or over ``http``."""
    with contextlib.ExitStack() as stack:
        if way == "opencv":
            monkeypatch.setitem(sys.modules, "av", None)
        address = str(path)
        if way == "http":
            content = path.read_bytes()
            host = stack.enter_context(byte_server([content], headers={"Content-Length": str(len(content))}))
            address = f"http://{host}/{path.name}"
        yield stack.enter_context(open_source(address))


# How it is to be turned


@pytest.mark.parametrize("way", ["pyav", "http", "opencv"])
@pytest.mark.parametrize(
    ("matrix", "corners"),
    [((1, 0, 0, 1), (0, 1, 2, 3)), ((0, 1, -1, 0), (2, 0, 3, 1)), ((-1, 0, 0, -1), (3, 2, 1, 0)),
     ((0, -1, 1, 0), (1, 3, 0, 2)), ((-1, 0, 0, 1), (1, 0, 3, 2)), ((0, 1, 1, 0), (0, 2, 1, 3))],
    ids=["as stored", "right", "upside down", "left", "mirrored", "right and mirrored"],
)  # fmt: skip
def test_a_film_is_turned_as_it_says_however_it_is_opened(
    matrix: Any, corners: Any, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "opencv" and matrix[0] * matrix[3] < matrix[1] * matrix[2]:
        pytest.skip("OpenCV turns, but does not mirror")
    path = turned(_write(tmp_path / "film.mp4", [_corners()] * 2), matrix)
    with _opened(path, way, monkeypatch) as source:
        frames = read_frames(source)
        assert source.size_wh == ((64, 96) if matrix[1] else (96, 64))
    height, width = frames[1].image.shape[:2]
    assert (width, height) == source.size_wh and frames[1].image.flags.c_contiguous
    shown = [frames[1].image[y, x] for y in (8, height - 8) for x in (8, width - 8)]
    assert np.abs(np.array(shown, int) - [CORNERS[number] for number in corners]).max() < 20


# When it is shown


@pytest.mark.parametrize("way", ["pyav", "http", "opencv"])
def test_frames_carry_the_times_of_the_recording(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "film.mp4", [_corners()] * len(UNEVEN_MS), UNEVEN_MS)
    with _opened(path, way, monkeypatch) as source:
        times_ms = [round(frame.recorded_ns / 1e6) for frame in read_frames(source)]
    assert times_ms == UNEVEN_MS


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_film_that_is_saved_keeps_the_times_of_the_recording(suffix: str, tmp_path: Path) -> None:
    levels = [np.full((64, 96, 3), 30 * number, np.uint8) for number in range(len(UNEVEN_MS))]
    path = _write(tmp_path / "film.mp4", levels, UNEVEN_MS)
    saved = tmp_path / f"saved{suffix}"
    with Pipeline(Segmenter(NumpyEngine()), open_source(path), sinks=[VideoSink(saved, 30)]) as pipeline:
        assert pipeline.join()
    with av.open(str(saved)) as container:
        frames = list(container.decode(video=0))
        length_ms = container.duration / 1000
    assert [round(1000 * frame.time) for frame in frames] == UNEVEN_MS
    assert [round(float(frame.to_ndarray(format="bgr24").mean()) / 30) for frame in frames] == list(range(7))
    assert 2740 <= length_ms <= 2740 + 1300, "the last one is shown for no longer than the one before"


def test_a_film_of_an_even_rate_keeps_it_exactly(tmp_path: Path) -> None:
    path = _write(tmp_path / "film.mp4", [_corners()] * 10)
    saved = tmp_path / "saved.mp4"
    with Pipeline(Segmenter(NumpyEngine()), open_source(path), sinks=[VideoSink(saved, 25)]) as pipeline:
        assert pipeline.join()
    with open_source(saved) as source:
        assert (source.fps, source.num_frames) == (25.0, 10)
        assert [frame.recorded_ns for frame in read_frames(source)] == [40_000_000 * number for number in range(10)]


def test_opencv_says_when_a_film_plays_faster_than_it_was_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    path = _write(tmp_path / "film.mp4", [_corners()] * len(UNEVEN_MS), UNEVEN_MS)
    source = open_source(path)
    monkeypatch.setitem(sys.modules, "av", None)
    try:
        sink = VideoSink(tmp_path / "saved.webm", 25)
    except MissingPackageError:
        pytest.skip("this OpenCV encodes no VP8")
    with Pipeline(Segmenter(NumpyEngine()), source, sinks=[sink]) as pipeline:
        assert pipeline.join()
    assert "plays 2.5 s shorter than it was filmed" in caplog.text


# What is damaged


def test_pictures_that_ffmpeg_marks_as_damaged_are_left_out(tmp_path: Path, caplog: Any) -> None:
    blocks = [np.random.default_rng(number).integers(0, 256, (24, 40, 3), np.uint8) for number in range(20)]
    path = _write(tmp_path / "film.mp4", [picture.repeat(8, 0).repeat(8, 1) for picture in blocks])
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in (packets[number] for number in (3, 7, 13, 16)):
        content[place + size // 2 : place + size - 4] = bytes(size - 4 - size // 2)
    path.write_bytes(content)
    with open_source(path) as source:
        given = len(read_frames(source))
    assert source.damaged >= 1 and given + source.damaged == 20
    feed = feeds._demuxed(av.open(str(path)), "camera", live=True)
    with StreamSource(feed, "camera", refuse=lambda said: CameraError(str(said))) as camera:
        with contextlib.suppress(CameraError):
            read_frames(camera)
        assert camera.damaged == source.damaged, "of a camera as of a film"
    assert f"ended after {given} of 20 frames: {source.damaged} damaged and left out" in caplog.text


# What it is called


@pytest.mark.parametrize("way", ["pyav", "opencv"])
@pytest.mark.parametrize("name", ["10:30.mp4", "a:b.mp4", "end.mp4 ", " begin.mp4", "50% #1?.mp4", "%20.mp4"])
def test_any_name_of_a_film_is_one(name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / name, [_corners()] * 2)
    with monkeypatch.context() as patched:
        if way == "opencv":
            patched.setitem(sys.modules, "av", None)
        for address in (name, tmp_path / name, (tmp_path / name).as_uri(), f"file://{tmp_path}/{name}"):
            with open_source(address) as source:
                assert len(read_frames(source)) == 2
            assert [path.resolve() for path in source_files(address)] == [tmp_path / name], "nothing is written over it"
    with VideoSink(Path(f"saved-{name.strip()}"), 25) as sink:
        sink.write(_corners())
    assert len(read_frames(open_source(f"saved-{name.strip()}"))) == 1


def test_spaces_around_a_name_are_no_part_of_it_unless_there_is_such_a_file(tmp_path: Path) -> None:
    _write(tmp_path / "film.mp4", [_corners()])
    with open_source(f" {tmp_path}/film.mp4 ") as source:
        assert source.size_wh == (96, 64)


# What is too large


@pytest.mark.parametrize(("suffix", "most"), [(".mp4", 16384), (".webm", 16382)])
def test_a_picture_larger_than_the_format_takes_is_refused_with_the_limit(
    suffix: str, most: int, tmp_path: Path
) -> None:
    with VideoSink(tmp_path / f"a{suffix}", 25) as sink, pytest.raises(FrameError, match=f"70000x20.* {most} pixels"):
        sink.write(np.zeros((20, 70_000, 3), np.uint8))
    with VideoSink(tmp_path / f"b{suffix}", 25) as sink:
        sink.write(np.zeros((16, most, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == [f"b{suffix}"]
    assert cv2.VideoCapture(str(tmp_path / f"b{suffix}")).read()[1].shape == (16, most, 3)
