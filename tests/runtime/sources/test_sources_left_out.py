"""What a camera's frames are left out for, damage and age, and where the counts are seen."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Optional, Tuple

import av
import cv2
import numpy as np
import pytest
from runtime.fakes import FakeClock, ListSource, NumpyEngine
from runtime.streams import jpeg

from rtda_deploy.cli.run.screen import summary_lines
from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime import Pipeline, Segmenter
from rtda_runtime.sources import ReconnectingSource, Source
from rtda_runtime.sources import stream as stream_module
from rtda_runtime.sources.capture import CaptureSource
from rtda_runtime.sources.feeds import Feed
from rtda_runtime.sources.stream import StreamSource
from rtda_runtime.sources.v4l2 import driver_time_ns, open_camera

MS = 1_000_000
PICTURE = jpeg(np.full((48, 64, 3), 90, np.uint8))


class _MotionJpegCamera:
    """A cv2.VideoCapture of a USB camera: gives JPEGs as they are where it is told to and can.

    Args:
        sent: The JPEGs.
        waits_ms: How long each grab takes, on ``clock``.
        filmed_ms: The driver's stamp of each.
    """

    def __init__(
        self,
        sent: List[bytes],
        *,
        raw: bool = True,
        clock: Optional[FakeClock] = None,
        waits_ms: Iterator[float] = iter(()),
        filmed_ms: Iterator[float] = iter(()),
    ) -> None:
        self.values: Dict[int, float] = {
            cv2.CAP_PROP_CONVERT_RGB: 1,
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter_fourcc(*"MJPG"),
        }
        self._sent = iter(sent)
        self._raw = raw
        self._clock = clock
        self._waits_ms, self._filmed_ms = waits_ms, filmed_ms
        self._newest = b""

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        self.values[key] = value
        return True

    def get(self, key: int) -> float:
        return self.values.get(key, 0.0)

    def grab(self) -> bool:
        self._newest = next(self._sent, b"")
        if self._clock is not None:
            self._clock.sleep(next(self._waits_ms, 0.0) / 1000)
        self.values[cv2.CAP_PROP_POS_MSEC] = next(self._filmed_ms, 0.0)
        return bool(self._newest)

    def retrieve(self, out: Any = None) -> Tuple[bool, np.ndarray]:
        content = np.frombuffer(self._newest, np.uint8)
        if self._raw and not self.values[cv2.CAP_PROP_CONVERT_RGB]:
            return True, content.reshape(1, -1)
        return True, cv2.imdecode(content, cv2.IMREAD_COLOR)

    def release(self) -> None: ...


@pytest.mark.parametrize("raw", [True, False])
def test_a_usb_camera_leaves_out_jpegs_that_are_cut_off(raw: bool, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "video0").touch()
    padded = PICTURE + bytes(50)
    sent = [PICTURE, padded, PICTURE[:-2] + bytes(50), PICTURE] if raw else [PICTURE] * 4
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: _MotionJpegCamera(sent, raw=raw))
    with open_camera(tmp_path / "video0") as source:
        frames: List[Any] = []
        with pytest.raises(CameraError, match=f"after {2 if raw else 3} frames"):
            while True:
                frames.append(source.read(2.0))
    # The first JPEG shows whether this OpenCV gives them at all.
    assert [frame.sequence for frame in frames] == ([0, 2] if raw else [0, 1, 2])
    assert source.damaged == (1 if raw else 0)
    assert all(abs(int(frame.image.mean()) - 90) < 3 and frame.image.shape == (48, 64, 3) for frame in frames)


def _lost(happened: str) -> CameraError:
    return CameraError(f"camera {happened}")


@pytest.mark.parametrize("stamped", [True, False])
def test_after_a_stall_a_usb_cameras_old_buffers_are_left_out(stamped: bool) -> None:
    """Ten frames in time, 33 s, four buffers that were filled at the beginning of them, and new frames."""
    clock = FakeClock()
    start_ms = clock.now_ns / MS
    waits_ms = [33.0] * 10 + [33_000.0, 0.1, 0.1, 0.1] + [33.0] * 10
    filmed_ms = [start_ms + 33 * (number + 1) for number in range(14)]
    filmed_ms += [start_ms + 33 * 10 + 33_000.3 + 33 * (number + 1) for number in range(10)]
    camera = _MotionJpegCamera(
        [PICTURE] * 24, raw=False, clock=clock, waits_ms=iter(waits_ms), filmed_ms=iter(filmed_ms if stamped else ())
    )
    source = CaptureSource(camera, "camera", live=True, lost=_lost, stamp_of=driver_time_ns, clock=clock)
    proofs = 0 if stamped else 8
    frames: List[Any] = [source.read() for _ in range(20 - proofs)]
    assert source.outdated == 4 + proofs and source.stamp == ("driver" if stamped else "arrival")
    assert [frame.sequence for frame in frames] == [*range(10), *range(14 + proofs, 24)]
    told_ms = [frame.captured_ns / MS for frame in frames]
    assert told_ms == [pytest.approx(time_ms, abs=1) for time_ms in filmed_ms[:10] + filmed_ms[14 + proofs :]]


def test_a_cameras_first_frame_is_left_out_where_it_is_old_when_it_is_asked_for() -> None:
    """It was grabbed to prove the camera; then a network was loaded."""
    for loading_s, wanted in ((0.4, [0, 1]), (1.3, [1, 2])):
        clock = FakeClock()
        filmed_ms = iter([clock.now_ns / MS, *(clock.now_ns / MS + loading_s * 1000 + 33 * n for n in (1, 2, 3))])
        camera = _MotionJpegCamera(
            [PICTURE] * 4, raw=False, clock=clock, waits_ms=iter([0.0, 33.0, 33.0, 33.0]), filmed_ms=filmed_ms
        )
        source = CaptureSource(camera, "camera", live=True, lost=_lost, stamp_of=driver_time_ns, clock=clock)
        clock.sleep(loading_s)
        frames = [source.read() for _ in range(2)]
        assert [frame.sequence for frame in frames if frame] == wanted and source.outdated == wanted[0]


class _ScriptedFeed(Feed):
    """JPEGs that come after these waits; ``due``: not before they are filmed."""

    live = jpeg = True

    def __init__(
        self, clock: FakeClock, waits_ms: List[float], *, filmed_ms: Optional[List[float]] = None, due: bool = False
    ) -> None:
        self.timed = filmed_ms is not None
        self.decoded = 0
        self._decoder: Any = av.CodecContext.create("mjpeg", "r")
        self.packets = self._script(clock, waits_ms, filmed_ms, clock.now_ns if due else None)

    def _script(
        self, clock: FakeClock, waits_ms: List[float], filmed_ms: Optional[List[float]], start_ns: Optional[int]
    ) -> Iterator[Any]:
        for number, wait_ms in enumerate(waits_ms):
            if start_ns is not None and filmed_ms is not None:
                wait_ms = max(0.0, (start_ns - clock.now_ns) / MS + filmed_ms[number])
            clock.sleep(wait_ms / 1000)
            packet = av.Packet(PICTURE)
            if filmed_ms is not None:
                packet.pts, packet.time_base = round(filmed_ms[number]), Fraction(1, 1000)
            yield packet

    def decode(self, packet: Any) -> Any:
        self.decoded += 1
        return self._decoder.decode(packet)

    def close(self) -> None: ...


@pytest.mark.parametrize("timed", [False, True], ids=["http", "rtsp"])
def test_after_a_stall_a_streams_queue_is_left_out_without_decoding_it(timed: bool, monkeypatch: Any) -> None:
    clock = FakeClock()
    monkeypatch.setattr(stream_module, "time", SimpleNamespace(monotonic=lambda: clock.now_ns / 1e9))
    waits_ms = [50.0] * 20 + [33_000.0] + [4.0] * 529 + [50.0] * 20
    filmed_ms = [50.0 * number for number in range(20 + 530)]
    filmed_ms += [50 * 19 + 33_000 + 4 * 529 + 50.0 * (number + 1) for number in range(20)]
    feed = _ScriptedFeed(clock, waits_ms, filmed_ms=filmed_ms if timed else None)
    source = StreamSource(feed, "http://camera", refuse=lambda said: CameraError(str(said)), clock=clock)
    ages_ms: List[float] = []
    proofs = 0 if timed else 7
    for _ in range(40 - proofs):
        frame: Any = source.read()
        ages_ms.append((clock.now_ns - frame.captured_ns) / MS)
    assert source.outdated == 530 + proofs and feed.decoded == 40 - proofs
    assert max(ages_ms) == 0
    assert frame.sequence == 569


def test_who_decodes_slower_than_the_camera_films_connects_anew_instead_of_giving_nothing(monkeypatch: Any) -> None:
    """25 frames a second, and a decoder of 60 ms: whoever waited for it to catch up would wait for ever."""
    clock = FakeClock()
    monkeypatch.setattr(stream_module, "time", SimpleNamespace(monotonic=lambda: clock.now_ns / 1e9))
    feed = _ScriptedFeed(clock, [0.0] * 1000, filmed_ms=[40.0 * number for number in range(1000)], due=True)
    feed.jpeg = False
    decode = feed.decode
    monkeypatch.setattr(feed, "decode", lambda packet: [clock.sleep(0.06), *_stamped(decode(packet), packet)][1:])
    source = StreamSource(feed, "rtsp://camera", refuse=lambda said: CameraError(str(said)), clock=clock)
    began_ns = clock.now_ns
    with pytest.raises(CameraError, match="only old frames for 10 s: decoding is too slow"):
        while True:
            source.read(5.0)
    assert clock.now_ns - began_ns < 15_000 * MS and source.outdated > 100
    source.interrupt()
    with pytest.raises(SourceError, match="is closed"):
        source.read(5.0)


def _stamped(pictures: List[Any], packet: Any) -> List[Any]:
    for picture in pictures:
        picture.pts, picture.time_base = packet.pts, packet.time_base
    return pictures


def test_frames_that_come_in_files_of_some_seconds_are_not_judged_by_their_pace() -> None:
    clock = FakeClock()
    feed = _ScriptedFeed(clock, ([6000.0] + [1.0] * 99) * 3, filmed_ms=[40.0 * number for number in range(300)])
    feed.steady = False
    source = StreamSource(feed, "http://camera", refuse=lambda said: CameraError(str(said)), clock=clock)
    assert [source.read().sequence for _ in range(300)] == list(range(300))  # type: ignore[union-attr]
    assert source.outdated == 0


def test_a_frame_that_waited_in_a_buffer_tells_its_age() -> None:
    """20 frames a second are filmed, and a loop of 90 ms looks at them."""
    clock = FakeClock()
    start_ms = clock.now_ns / MS
    filmed_ms = [50.0 * number for number in range(200)]
    feed = _ScriptedFeed(clock, [0.0] * 200, filmed_ms=filmed_ms, due=True)
    source = StreamSource(feed, "rtsp://camera", refuse=lambda said: CameraError(str(said)), clock=clock)
    for _ in range(80):
        frame: Any = source.read()
        assert frame.captured_ns / MS - start_ms == pytest.approx(50 * frame.sequence, abs=1)
        clock.sleep(0.09)
    assert clock.now_ns - frame.captured_ns <= 400 * MS and source.outdated > 30


def test_a_driver_that_was_believed_may_say_that_a_frame_is_old() -> None:
    camera = _MotionJpegCamera([PICTURE], filmed_ms=iter([1000.0]))
    camera.grab()
    assert driver_time_ns(camera, 40_000 * MS) is None
    assert driver_time_ns(camera, 40_000 * MS, known=True) == 1000 * MS
    assert driver_time_ns(camera, 900 * MS, known=True) is None, "no frame is of the future"


class _Counting(ListSource):
    """A camera that left out one damaged and two old frames for each one it gave."""

    @property
    def damaged(self) -> int:
        return self._next

    @property
    def outdated(self) -> int:
        return 2 * self._next


def test_the_counts_outlive_a_camera_that_was_lost() -> None:
    cameras: List[Source] = [_Counting(3, live=True, error=CameraError("gone")), _Counting(2, live=True)]
    source = ReconnectingSource(lambda: cameras.pop(0), drain=False, wait=lambda _: False)
    while source.read() is not None:
        pass
    assert (source.losses, source.damaged, source.outdated) == (1, 5, 10)
    source.close()


def test_the_counts_are_in_the_statistics_and_in_the_last_line() -> None:
    with Pipeline(Segmenter(NumpyEngine()), _Counting(4)) as pipeline:
        assert len(list(pipeline)) == 4
    stats = {**pipeline.stats, "wrote": []}
    assert (stats["damaged"], stats["outdated"], stats["captured"], stats["dropped"]) == (4, 8, 4, 0)
    assert "damaged 4 · outdated 8" in summary_lines(stats, live=True)[0]
    assert "damaged" not in summary_lines({**stats, "damaged": 0, "outdated": 0}, live=True)[0]
