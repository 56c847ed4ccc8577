"""Network cameras and films: RTSP, HTTP, motion JPEG, video files and whatever else FFmpeg reads, through PyAV.

PyAV and not OpenCV's FFmpeg, because of what can be chosen per stream (no frame-parallel decoder, no buffering while
the stream is probed, RTSP over TCP), because errors say what happened, and because it gives each frame's time, its
orientation and whether it is whole. ``docs/sources.md`` has the measured delays of both.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Tuple

import numpy as np

from rtda_deploy.errors import CameraError, SourceError
from rtda_deploy.masking import mask_password
from rtda_deploy.pictures.whole import jpeg_is_whole
from rtda_runtime.sources.base import CATCH_UP_S, TOO_SLOW, Frame, GrabbingSource, RefusedError
from rtda_runtime.sources.feeds import Feed, open_feed, open_film_feed
from rtda_runtime.sources.ffmpeg import Trouble, escape_login, pyav, trouble_of
from rtda_runtime.sources.film_errors import film_error
from rtda_runtime.sources.kinds import CameraRequest
from rtda_runtime.sources.lateness import Lateness
from rtda_runtime.sources.shown import ShownPictures
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["StreamSource", "open_film", "open_stream", "opener"]

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0  # an RTSP camera that wakes up answers within a few seconds
_READ_TIMEOUT_S = 5.0
_NEAR_END = 0.9  # of its claimed duration; a recording that ends before lacks a part


class StreamSource(GrabbingSource):
    """Frames of a feed. The first one is read at once: it proves the stream and gives its size.

    Damaged frames, and frames of a camera that are old when they arrive, are dropped and counted.

    Args:
        feed: Closed with the source.
        refuse: Makes the error of a read from what PyAV raised, or from a sentence.
    """

    def __init__(
        self,
        feed: Feed,
        name: str,
        *,
        refuse: Callable[[object], SourceError],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        av: Any = pyav()
        self.name = name
        self._feed: Optional[Feed] = feed
        self._refuse = refuse
        self._clock = clock
        self._error = av.FFmpegError
        self._invalid: Tuple[Any, ...] = (av.error.InvalidDataError,)
        self._pool = BufferPool()
        self._shown = ShownPictures()
        self.live = feed.live
        self.stamp = "arrival" if self.live else "read"
        self.fps = feed.fps
        self.num_frames = feed.num_frames
        self._lateness = Lateness() if self.live and feed.steady else None
        self._decoded: Iterator[Any] = iter(())
        self._arrived_ns = self._waited_ns = 0
        self._began_s: Optional[float] = None  # a recording's first time, seconds on its own clock
        self._shown_s = 0.0  # and its newest, seconds after that
        self.size_wh = (0, 0)
        self._first = self._grab(_READ_TIMEOUT_S)
        if self._first is None:
            raise refuse("ended before its first whole picture" if self.live else "holds no frame that can be decoded")

    def interrupt(self) -> None:
        self._closed = True  # ends the reading of old frames

    def close(self) -> None:
        feed, self._feed, self._first, self._closed = self._feed, None, None, True
        self._decoded = iter(())
        if feed is not None:
            feed.close()

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        assert self._feed is not None
        start_s = time.monotonic()
        picture, trouble = None, None
        try:
            picture = self._picture(self._feed, timeout_s)
        except self._error as err:
            trouble = err
        if picture is not None:
            return self._frame(picture)
        if not self.live and (trouble is None or (self._given and self._feed.local)):
            self._tell_end(self._feed)
            return None
        # Outside of the except clause, because PyAV's own text holds the address with its password.
        if trouble is not None and not self._given:
            raise self._refuse(trouble)
        waited_s = time.monotonic() - start_s
        late = waited_s >= 0.9 * min(timeout_s, _READ_TIMEOUT_S)
        happened = f"gave no frame for {waited_s:.1f} s" if late else "ended or was disconnected"
        raise self._refuse(f"{happened}, after {self._given} frames")

    def _picture(self, feed: Feed, timeout_s: float) -> Any:
        """The next decoded picture that is whole and not old; None at the end.

        Raises:
            SourceError: If nothing comes in time, or nothing but old pictures for longer than a new connection takes.
        """
        behind_s = time.monotonic() + CATCH_UP_S
        deadline_s = time.monotonic() + timeout_s
        while True:
            for picture in self._decoded:
                if not feed.jpeg and self._is_old(picture, feed):
                    deadline_s = time.monotonic() + timeout_s  # it is there, and catching up
                    if self._closed:
                        raise self._closed_error()
                    if time.monotonic() > behind_s:
                        raise self._refuse(TOO_SLOW)
                elif picture.is_corrupt:
                    self._count_damaged(feed)
                else:
                    return picture
            if self.live and time.monotonic() > deadline_s:
                raise self._refuse(f"sends nothing that can be decoded, after {self._given} frames")
            asked_s = time.monotonic()
            packet = self._next_packet(feed)
            if packet is None:
                return None
            if time.monotonic() - asked_s > timeout_s:  # we or the camera were stopped: try the next packets
                deadline_s = time.monotonic() + timeout_s
            if feed.jpeg and packet.size and self._is_old(packet, feed):
                deadline_s = time.monotonic() + timeout_s
            elif not feed.jpeg or not packet.size or self._is_whole(packet, feed):
                try:
                    self._decoded = iter(feed.decode(packet))
                except self._invalid:
                    self._count_damaged(feed)

    def _next_packet(self, feed: Feed) -> Any:
        asked_ns = self._clock()
        packet = next(feed.packets, None)
        self._arrived_ns = self._clock()
        self._waited_ns += self._arrived_ns - asked_ns
        return packet

    def _is_whole(self, packet: Any, feed: Feed) -> bool:
        """Whether a JPEG is, and can be decoded."""
        whole = jpeg_is_whole(bytes(packet))
        if not whole:
            self._count_damaged(feed)
        return whole

    def _is_old(self, item: Any, feed: Feed) -> bool:
        if self._lateness is None:
            return False
        filmed_ns = round(item.pts * item.time_base * 1_000_000_000) if feed.timed and item.pts is not None else None
        waited_ns, self._waited_ns = self._waited_ns, 0
        old = self._lateness.is_old(self._arrived_ns, waited_ns, filmed_ns)
        if old:
            self._leave_out_old()
        return old

    def _count_damaged(self, feed: Feed) -> None:
        # The first picture after joining a camera's stream may be incomplete; that is no damage.
        if self._given or feed.jpeg or not self.live:
            self._leave_out_damaged()

    def _tell_end(self, feed: Feed) -> None:
        there = self._given + self.damaged
        claimed = self.num_frames or there
        missing = there < claimed
        if feed.duration_s is not None:
            missing = self._shown_s < _NEAR_END * feed.duration_s
        if self._given and (missing or self.damaged):
            told = f"{self.damaged} damaged and left out" if self.damaged else "the rest is missing or damaged"
            _log.warning("%s ended after %d of %d frames: %s", self.name, self._given, max(there, claimed), told)

    def _frame(self, picture: Any) -> Frame:
        shown = self._shown.view(picture)
        size_wh = (shown.shape[1], shown.shape[0])
        if size_wh != self.size_wh:
            if self._given:
                _log.info("%s now gives %dx%d, before it was %dx%d", self.name, *size_wh, *self.size_wh)
            self.size_wh = size_wh
        image = self._pool.take(shown.shape)
        np.copyto(image, shown)
        lag_ns = 0 if self._lateness is None else self._lateness.lag_ns
        captured_ns = self._arrived_ns - lag_ns if self.live else self._clock()
        return Frame(image=image, captured_ns=captured_ns, sequence=self._next, recorded_ns=self._recorded_ns(picture))

    def _recorded_ns(self, picture: Any) -> Optional[int]:
        """Where a recording shows the picture; None where it does not say."""
        if self.live or self._feed is None or not self._feed.timed or picture.time is None:
            return None
        time_s = float(picture.time)
        self._began_s = time_s if self._began_s is None else self._began_s
        self._shown_s = time_s - self._began_s
        return round(self._shown_s * 1e9)


def open_film(path: Path) -> StreamSource:
    """Open a video file that was checked to exist.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """
    av: Any = pyav()

    try:
        feed = open_film_feed(path)
    except (av.FFmpegError, RefusedError) as err:
        raise film_error(path, err) from err
    with contextlib.ExitStack() as opened:
        opened.callback(feed.close)
        source = StreamSource(feed, str(path), refuse=functools.partial(film_error, path))
        opened.pop_all()
    return source


def opener(address: str, request: CameraRequest) -> Callable[[], StreamSource]:
    """What opens ``rtsp://``, ``http://`` or another network address; nothing can be asked of it."""
    return functools.partial(open_stream, address)


def open_stream(
    uri: str, *, timeout_s: float = _OPEN_TIMEOUT_S, read_timeout_s: float = _READ_TIMEOUT_S
) -> StreamSource:
    """Open ``rtsp://``, ``http://`` or another network address that FFmpeg reads.

    Raises:
        RefusedError: If the password is wrong, or what it sends is no video that can be decoded here.
        CameraError: If there is no answer in time. No text holds the password.
    """
    av: Any = pyav()
    name = mask_password(uri)
    address = escape_login(uri)
    read_timeout_s = min(timeout_s, read_timeout_s)
    feed: Optional[Feed] = None

    def refuse(trouble: object) -> SourceError:
        if isinstance(trouble, str):
            return CameraError(f"{name} {trouble}", hint=Trouble("").hint)
        said = trouble_of(trouble, address, timeout_s if feed is None else read_timeout_s)
        kind = RefusedError if said.final else CameraError
        return kind(f"{name} {said.sentence}", hint=said.hint)

    start = time.monotonic()
    trouble: object = None
    try:
        feed = open_feed(address, name, (timeout_s, read_timeout_s))
    except av.FFmpegError as err:
        late = isinstance(err, av.error.InvalidDataError) and time.monotonic() - start > 0.9 * timeout_s
        trouble = TimeoutError() if late else err  # RTSP's demuxer calls an interrupted wait invalid data
    if feed is None:
        raise refuse(trouble)
    with contextlib.ExitStack() as opened:
        opened.callback(feed.close)
        source = StreamSource(feed, name, refuse=refuse)
        opened.pop_all()
    return source
