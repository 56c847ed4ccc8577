"""Network cameras: RTSP, HTTP motion JPEG and whatever else FFmpeg reads, through PyAV.

PyAV and not OpenCV's FFmpeg, because of what can be chosen per stream: no frame-parallel decoder (OpenCV's holds one
frame back per core), no buffering while the stream is probed, RTSP over TCP, and errors that say what happened.
``docs/sources.md`` has the measured delays of both.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

import numpy as np

from rtda_deploy.errors import CameraError, SourceError
from rtda_deploy.optional import require
from rtda_runtime.buffers import BufferPool
from rtda_runtime.sources.address import mask_password
from rtda_runtime.sources.base import Frame, GrabbingSource, RefusedError, frame_rate

__all__ = ["StreamSource", "open_stream"]

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0  # an RTSP camera that wakes up answers within a few seconds
_READ_TIMEOUT_S = 5.0
_OPTIONS = {
    "fflags": "nobuffer",  # what is read to learn the format is not kept: the first frame is a new one
    "flags": "low_delay",  # the decoder gives each picture as soon as it has it
    "fpsprobesize": "0",  # a guess of the rate is not worth the twenty frames it takes: back sooner after a loss
    "rtsp_flags": "prefer_tcp",  # lost UDP packets are smeared pictures; cameras without TCP still work
}


class StreamSource(GrabbingSource):
    """Frames of an opened ``av`` container. The first one is read at once: it proves the stream and gives its size.

    Args:
        container: Of :func:`av.open`; closed with the source.
        refuse: Makes the error of a read from what PyAV raised, or from a sentence.
    """

    def __init__(
        self,
        container: Any,
        name: str,
        *,
        refuse: Callable[[object], SourceError],
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        av: Any = _av()
        self.name = name
        self._container: Any = container
        self._refuse = refuse
        self._clock = clock
        self._error = av.FFmpegError
        self._damaged: Tuple[Any, ...] = (av.error.InvalidDataError,)
        self._pool = BufferPool()
        self._reformatter: Any = av.video.reformatter.VideoReformatter()
        self._stream: Any = _video_of(container, name)
        self._stream.thread_type = "SLICE"  # FRAME would hold one picture back for each thread
        # A length is what recordings have; a camera's server may claim one all the same.
        self.live = name.startswith(("rtsp", "rtp")) or container.duration is None
        self.stamp = "arrival" if self.live else "read"
        self.fps = _rate(container, self._stream)
        self.num_frames = None if self.live else (self._stream.frames or None)
        self._packets: Iterator[Any] = container.demux(self._stream)
        self._decoded: Iterator[Any] = iter(())
        self._arrived_ns = 0
        self.size_wh = (0, 0)
        self._first = self._grab(_READ_TIMEOUT_S)
        if self._first is None:
            raise refuse("ended before its first picture")

    def close(self) -> None:
        container, self._container, self._first, self._closed = self._container, None, None, True
        self._packets = self._decoded = iter(())
        if container is not None:
            container.close()

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        start_s = time.monotonic()
        picture, trouble = None, None
        try:
            picture = self._picture(start_s + timeout_s)
        except self._error as err:
            trouble = err
        if picture is not None:
            return self._frame(picture)
        if trouble is None and not self.live:
            return None
        # Outside of the except clause, because PyAV's own text holds the address with its password.
        if trouble is not None and not self._next:
            raise self._refuse(trouble)
        waited_s = time.monotonic() - start_s
        late = waited_s >= 0.9 * min(timeout_s, _READ_TIMEOUT_S)
        happened = f"gave no frame for {waited_s:.1f} s" if late else "ended or was disconnected"
        raise self._refuse(f"{happened}, after {self._next} frames")

    def _picture(self, deadline_s: float) -> Any:
        """The next whole decoded picture; None at the end. What is damaged is passed over."""
        while True:
            for picture in self._decoded:
                if not picture.is_corrupt:
                    return picture
            if time.monotonic() > deadline_s:
                return self._nothing_decodable()
            packet = next(self._packets, None)
            if packet is None:
                return None
            self._arrived_ns = self._clock()
            with contextlib.suppress(*self._damaged):
                self._decoded = iter(packet.decode())

    def _nothing_decodable(self) -> Any:
        raise self._refuse(f"sends nothing that can be decoded, after {self._next} frames")

    def _frame(self, picture: Any) -> Frame:
        size_wh = (picture.width, picture.height)
        if size_wh != self.size_wh:
            if self._next:
                _log.info("%s now gives %dx%d, before it was %dx%d", self.name, *size_wh, *self.size_wh)
            self.size_wh = size_wh
        plane = self._reformatter.reformat(picture, format="bgr24").planes[0]
        width, height = size_wh
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        image = self._pool.take((height, width, 3))
        np.copyto(image.reshape(height, width * 3), rows[:height, : width * 3])
        return Frame(image=image, captured_ns=self._arrived_ns, sequence=self._next)


def open_stream(
    uri: str, *, timeout_s: float = _OPEN_TIMEOUT_S, read_timeout_s: float = _READ_TIMEOUT_S
) -> StreamSource:
    """Open ``rtsp://``, ``http://`` or another network address that FFmpeg reads.

    Raises:
        RefusedError: If the password is wrong, or what it sends is no video that can be decoded here.
        CameraError: If nobody answers, or not in time. No text holds the password.
    """
    av: Any = _av()
    name = mask_password(uri)
    read_timeout_s = min(timeout_s, read_timeout_s)
    container: Any = None

    def refuse(trouble: object) -> SourceError:
        if isinstance(trouble, str):
            return CameraError(f"{name} {trouble}", hint=_Trouble("").hint)
        said = _trouble(trouble, uri, timeout_s if container is None else read_timeout_s)
        kind = RefusedError if said.final else CameraError
        return kind(f"{name} {said.sentence}", hint=said.hint)

    start = time.monotonic()
    trouble: object = None
    try:
        container = av.open(uri, options=_options(uri), timeout=(timeout_s, read_timeout_s))
    except av.FFmpegError as err:
        late = isinstance(err, av.error.InvalidDataError) and time.monotonic() - start > 0.9 * timeout_s
        trouble = TimeoutError() if late else err  # RTSP's demuxer calls an interrupted wait invalid data
    if container is None:
        raise refuse(trouble)
    try:
        return StreamSource(container, name, refuse=refuse)
    except BaseException:
        container.close()
        raise


def _av() -> Any:
    return require("av", extra="runtime", purpose="to read network cameras; on a Jetson: pip install av")


def _options(uri: str) -> Dict[str, str]:
    options = dict(_OPTIONS)
    if not uri.lower().startswith("rtsp"):
        del options["rtsp_flags"]
    if uri.lower().startswith("http"):  # motion JPEG is known by its first picture; a recording must not lose any
        del options["fflags"]
    return options


def _video_of(container: Any, name: str) -> Any:
    videos = container.streams.video
    if not videos:
        there = ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
        raise RefusedError(
            f"{name} sends no video that FFmpeg knows, but {there}", hint="choose H.264 in the camera's settings"
        )
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise RefusedError(
            f"{name} sends a codec that FFmpeg does not know", hint="choose H.264 or MJPEG in the camera's settings"
        )
    return known[0]


def _rate(container: Any, stream: Any) -> Optional[float]:
    if container.format.name == "mpjpeg":  # nothing in it says a rate; FFmpeg claims 25
        return None
    return frame_rate(float(stream.average_rate or stream.guessed_rate or 0))


class _Trouble(NamedTuple):
    """What PyAV's error means to a person; ``final``: it will be the same the next time."""

    sentence: str
    hint: str = "is it on, and is the address right?"
    final: bool = False


def _trouble(err: object, uri: str, waited_s: float) -> _Trouble:
    av: Any = _av()
    if isinstance(err, av.error.HTTPUnauthorizedError):
        if "@" in uri:
            return _Trouble("refused this user name and password (401)", "look them up in the camera's settings", True)
        return _Trouble("asks for a user name and a password (401)", "put them before the host: user:password@", True)
    if isinstance(err, av.error.HTTPForbiddenError):
        return _Trouble("does not let this user see it (403)", "give that user the right in the camera", True)
    if isinstance(err, av.error.HTTPNotFoundError):
        return _Trouble("has nothing at this path (404)", "the path is in the camera's manual, often /stream1 or /live")
    if isinstance(err, (av.error.HTTPClientError, av.error.HTTPServerError)):
        return _Trouble(f"answered with an error: {_text(err)}", "has it too many viewers? Its own log may say more")
    if isinstance(err, (av.error.ExitError, TimeoutError)):
        return _Trouble(f"gave no video within {waited_s:g} s", "is it on, and does a firewall let it through?")
    if isinstance(err, av.error.ProtocolNotFoundError):
        return _Trouble("needs a protocol that this FFmpeg was built without", "rtsp:// and http:// always work", True)
    if isinstance(err, (av.error.DecoderNotFoundError, av.error.DemuxerNotFoundError)):
        return _Trouble("sends a codec that this FFmpeg was built without", "choose H.264 in its settings", True)
    if isinstance(err, av.error.InvalidDataError):
        return _Trouble("gave nothing that can be read as video", "open the address in a browser or a player")
    return _network_trouble(err, uri)


def _network_trouble(err: object, uri: str) -> _Trouble:
    number = getattr(err, "errno", None)
    if number == errno.ECONNREFUSED:
        return _Trouble("refuses the connection: nobody listens there", "is it on, and is the port right?")
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return _Trouble("cannot be reached: no route to it", "is it on, and in this network?")
    if number == errno.EIO and not _host_is_known(uri):
        return _Trouble("cannot be found: nobody knows that host name", "is it spelt right? Try its IP address")
    return _Trouble(f"gave nothing that can be read as video: {_text(err)}", "open it in a browser or a player")


def _host_is_known(uri: str) -> bool:
    """FFmpeg calls every failed look-up of a name an input/output error."""
    try:
        socket.getaddrinfo(urlsplit(uri).hostname, None)
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _text(err: object) -> str:
    """PyAV's words without the address that it appends."""
    return str(getattr(err, "strerror", "") or type(err).__name__)
