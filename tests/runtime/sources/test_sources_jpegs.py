"""Motion JPEG: what stands between the pictures, and pictures that are not whole."""

from __future__ import annotations

import contextlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, List

import av
import numpy as np
import pytest
from runtime.streams import byte_server, jpeg

from rtda_deploy.errors import CameraError, SourceError
from rtda_deploy.pictures.whole import jpeg_is_whole
from rtda_runtime.sources import Source, open_source
from rtda_runtime.sources.jpegs import JpegSplitter, holds_jpegs

LEVELS = (40, 80, 120, 160, 200, 240)


def _grey(level: int) -> np.ndarray:
    """Of one brightness, with a little noise, so that a half is a half."""
    noise = np.random.default_rng(level).integers(-6, 7, (48, 64, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


JPEGS = [jpeg(_grey(level)) for level in LEVELS]


def _head(part: bytes, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + part + b"\r\n"


def _multipart(parts: List[bytes], *lines: str) -> List[bytes]:
    return [b"--frame\r\n" + _head(part, *lines) for part in parts]


FRAMINGS = {
    "usual": _multipart(JPEGS, "Content-Type: image/jpeg"),
    "no first boundary": [
        _multipart(JPEGS, "Content-Type: image/jpeg")[0][len("--frame\r\n") :],
        *_multipart(JPEGS, "Content-Type: image/jpeg")[1:],
    ],
    "no type": _multipart(JPEGS),
    "a preamble": [b"This is a message in many parts.\r\n\r\n", *_multipart(JPEGS, "Content-Type: image/jpeg")],
    "a length": [
        b"\r\n--frame\r\n" + _head(part, "Content-Type: image/jpeg", f"Content-Length: {len(part)}") for part in JPEGS
    ],
    "one after the other": JPEGS,
    "zeros between": [part + bytes(7) for part in JPEGS],
}


def _levels(source: Source) -> List[int]:
    """The brightness of each frame; a stream's end is an error."""
    found: List[int] = []
    with source, contextlib.suppress(CameraError):
        while True:
            frame = source.read(5.0)
            if frame is None:
                break
            assert frame.image.std() < 8, "of one brightness from top to bottom"
            found.append(round(float(frame.image.mean()) / 40) * 40)
    return found


@pytest.mark.parametrize("framing", sorted(FRAMINGS))
def test_motion_jpeg_over_http_however_it_is_framed(framing: str) -> None:
    with byte_server(FRAMINGS[framing], headers={"Content-Type": "multipart/x-mixed-replace; boundary=frame"}) as host:
        source = open_source(f"http://{host}/cam")
        assert source.live and source.fps is None and source.size_wh == (64, 48)
        assert _levels(source) == list(LEVELS)
        assert source.damaged == 0


def test_a_stream_is_asked_for_once() -> None:
    """Many cameras serve one viewer only."""
    asked: List[Any] = []
    with byte_server(FRAMINGS["usual"], asked=asked) as host:
        _levels(open_source(f"http://{host}/cam"))
    assert asked == [("/cam", None)]


# A picture that is cut off


def _halved(part: bytes) -> bytes:
    return part[: len(part) // 2]


CUT = [JPEGS[0], _halved(JPEGS[1]), JPEGS[2], JPEGS[3][:40], JPEGS[4], JPEGS[5]]
WHOLE = [40, 120, 200, 240]


def _avi(path: Path) -> Path:
    """A film whose packets are ``CUT``; MKV by its suffix as well."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, part in enumerate(CUT):
            packet = av.Packet(part)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.mark.parametrize("framing", ["usual", "one after the other"])
def test_a_jpeg_that_is_cut_off_is_left_out_and_counted(framing: str) -> None:
    parts = _multipart(CUT, "Content-Type: image/jpeg") if framing == "usual" else CUT
    with byte_server(parts) as host:
        source = open_source(f"http://{host}/cam")
        sequences: List[int] = []
        read = source.read

        def noted(timeout_s: float = 2.0) -> Any:
            frame = read(timeout_s)
            sequences.extend([frame.sequence] if frame else [])
            return frame

        source.read = noted  # type: ignore[method-assign]
        levels = _levels(source)
    assert levels == WHOLE and source.damaged == 2
    assert sequences == [0, 2, 4, 5], "what is left out leaves a gap"


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("reader", ["pyav", "opencv"])
def test_a_film_leaves_out_what_is_cut_off(
    suffix: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    path = _avi(tmp_path / f"cut{suffix}")
    if reader == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    source = open_source(path)
    assert _levels(source) == WHOLE
    assert source.damaged == 2
    assert "ended after 4 of 6 frames: 2 damaged and left out" in caplog.text


def test_a_saved_stream_is_a_film(tmp_path: Path) -> None:
    (tmp_path / "saved.mjpg").write_bytes(b"".join(_multipart(CUT[:3])))
    source = open_source(tmp_path / "saved.mjpg")
    assert not source.live and _levels(source) == [40, 120] and source.damaged == 1


def test_a_film_without_a_whole_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "saved.mjpg").write_bytes(b"".join(_halved(part) for part in JPEGS))
    with pytest.raises(SourceError, match="holds no frame that can be decoded"):
        open_source(tmp_path / "saved.mjpg")


# The cutter


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_pieces_do_not_matter(size: int) -> None:
    content = b"".join(FRAMINGS["usual"])
    splitter, found = JpegSplitter(), []
    for start in range(0, len(content), size):
        found += splitter.feed(content[start : start + size])
    assert found == JPEGS and splitter.rest() == []


def test_a_picture_is_given_with_its_last_byte() -> None:
    splitter = JpegSplitter()
    assert splitter.feed(JPEGS[0][:-1]) == []
    assert splitter.feed(JPEGS[0][-1:]) == [JPEGS[0]]


def test_a_thumbnail_is_no_picture_of_its_own() -> None:
    exif = b"\xff\xe1" + (len(JPEGS[1]) + 2).to_bytes(2, "big") + JPEGS[1]
    picture = JPEGS[0][:2] + exif + JPEGS[0][2:]
    assert JpegSplitter().feed(picture) == [picture]


@pytest.mark.parametrize("cut", range(3, 700, 37))
def test_after_one_that_is_cut_off_anywhere_pictures_come_again(cut: int) -> None:
    found = JpegSplitter().feed(b"".join(_multipart([JPEGS[0][:cut], *JPEGS[1:]])))
    assert found[-4:] == JPEGS[2:] and not jpeg_is_whole(found[0])
    assert all(part in JPEGS for part in found if jpeg_is_whole(part)), "no picture of two halves"


@pytest.mark.parametrize(
    ("head", "is_jpegs"),
    [
        (b"", None),
        (b"--frame\r\nContent-Type: image/jpeg\r\n\r\n", None),
        (b"--frame\r\n\r\n\xff", None),
        (b"--frame\r\n\r\n\xff\xd8\xff", True),
        (b"\xff\xd8\xff\xe0", True),
        (b"<html><img src=x>", False),
        (b"#EXTM3U\n", False),
        (b"\x00\x00\x00\x18ftypmp42", False),
        (b"G\x40\x11\x10", False),
        (b"a" * 70_000, False),
    ],
)
def test_the_first_bytes_tell_jpegs_from_all_else(head: bytes, is_jpegs: Any) -> None:
    assert holds_jpegs(head) is is_jpegs


# A recording on a server that knows no ranges


def _film(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if path.suffix == ".avi" else "mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if path.suffix == ".avi" else "yuv420p"
        for level in LEVELS:
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="bgr24")
            ):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [".avi", ".mkv", ".ts", ".mjpg"])
def test_a_recording_over_http_without_ranges_is_none_of_a_camera_and_ends(kind: str, tmp_path: Path) -> None:
    content = b"".join(JPEGS) if kind == ".mjpg" else _film(tmp_path / f"film{kind}")
    with byte_server([content], headers={"Content-Length": str(len(content))}) as host:
        source = open_source(f"http://{host}/film{kind}", reconnect=True)
        assert not source.live
        assert _levels(source) == list(LEVELS)


@pytest.mark.parametrize(("kind", "live"), [(".mkv", False), (".ts", True)])
def test_without_a_length_the_duration_tells_a_recording_and_one_connection_is_enough(
    kind: str, live: bool, tmp_path: Path
) -> None:
    asked: List[Any] = []
    with byte_server([_film(tmp_path / f"film{kind}")], asked=asked) as host:
        source = open_source(f"http://{host}/film")
        assert source.live is live
        assert _levels(source) == list(LEVELS)
    assert len(asked) == 1
