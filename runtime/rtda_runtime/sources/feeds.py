"""The packets of a stream or a film: from FFmpeg's demuxers, or JPEGs cut out of what a server sends.

A connection is opened once. Its first bytes decide: a sequence of JPEGs is cut by :mod:`.jpegs`, because FFmpeg's own
reader needs a boundary before the first and a header before each; everything else is read by FFmpeg.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import itertools
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

from rtda_runtime.sources.base import RefusedError, frame_rate
from rtda_runtime.sources.ffmpeg import pyav
from rtda_runtime.sources.jpegs import JpegSplitter, holds_jpegs

__all__ = ["DemuxedFeed", "Feed", "is_cover", "open_feed", "open_film_feed"]

_OPTIONS = {
    "fflags": "nobuffer",  # what is read to learn the format is not kept: the first frame is a new one
    "flags": "low_delay",  # the decoder gives each picture as soon as it has it
    "fpsprobesize": "0",  # a guess of the rate is not worth the twenty frames it takes: back sooner after a loss
    "rtsp_flags": "prefer_tcp",  # lost UDP packets are smeared pictures; cameras without TCP still work
}
_PIECE_BYTES = 1 << 16
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC
_CLOCKLESS = 0x0080  # AVFMT_NOTIMESTAMPS: bare pictures, whose times FFmpeg makes up


class Feed(abc.ABC):
    """Packets of one video, and the decoder for them.

    Attributes:
        live: A camera. What has a length, in bytes or in seconds, is a recording.
        fps: Frames per second, where it is said.
        num_frames: Length, where it is said.
        duration_s: Length of a recording whose frames nobody counted: ``num_frames`` is then a guess.
        jpeg: Each packet is a JPEG.
        local: A file: where it cannot be read on, it ends.
        steady: Its frames come one by one as they are filmed, not in files of some seconds.
        timed: Its packets and pictures carry the times at which they were filmed.
        packets: ``av.Packet``; waits for each.
        decoder: ``av.VideoCodecContext``, what :meth:`decode` uses.
    """

    live: bool
    fps: Optional[float] = None
    num_frames: Optional[int] = None
    duration_s: Optional[float] = None
    local = False
    steady = True
    jpeg: bool
    timed: bool
    packets: Iterator[Any]
    decoder: Any

    @abc.abstractmethod
    def decode(self, packet: Any) -> Iterable[Any]:
        """The pictures that are complete with this packet, ``av.VideoFrame``."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection or file."""


class DemuxedFeed(Feed):
    """The first video of an opened container, cover pictures aside.

    Attributes:
        container: PyAV's.
        stream: The video in it.
    """

    def __init__(self, container: Any, name: str, *, live: bool, below: Any = None) -> None:
        self._opened = [container] if below is None else [container, below]
        stream = _video_of(container, name)
        self.live = live
        self.fps = frame_rate(float(stream.average_rate or stream.guessed_rate or 0))
        if not live:
            self.num_frames = int(stream.frames) or None
        if not live and self.num_frames is None and container.duration:
            self.duration_s = container.duration / 1e6
            self.num_frames = round(self.duration_s * self.fps) if self.fps else None
        self.jpeg = stream.codec_context.name == "mjpeg"
        self.steady = not _is_playlist(container)
        self.timed = not int(container.format.flags) & _CLOCKLESS
        stream.thread_type = "SLICE" if live else "AUTO"  # FRAME would hold one picture back for each thread
        if stream.codec_context.name == "h264":
            stream.codec_context.thread_count = 1  # with more, FFmpeg gives one damaged picture or another as whole
        # Of a stream as they are: what it raises when it is lost would keep a generator of ours, and so the old stream.
        self.packets = container.demux(stream) if live else _packets_of(container, stream)
        self.decoder, self.container, self.stream = stream.codec_context, container, stream

    def decode(self, packet: Any) -> Iterable[Any]:
        pictures: Iterable[Any] = packet.decode()
        return pictures

    def close(self) -> None:
        self.packets = iter(())
        for container in self._opened:
            container.close()


class _JpegFeed(Feed):
    """JPEGs cut out of bytes."""

    jpeg = True
    timed = False

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], None], *, live: bool) -> None:
        av: Any = pyav()
        self.live = live
        self._close = close
        self.decoder = av.CodecContext.create("mjpeg", "r")
        self.decoder.thread_count = 1
        self._packet = av.Packet
        self.packets = self._cut(pieces)

    def _cut(self, pieces: Iterator[bytes]) -> Iterator[Any]:
        splitter = JpegSplitter()
        for piece in pieces:
            yield from map(self._packet, splitter.feed(piece))
        yield from map(self._packet, splitter.rest())

    def decode(self, packet: Any) -> Iterable[Any]:
        pictures: Iterable[Any] = self.decoder.decode(packet)
        return pictures

    def close(self) -> None:
        self.packets = iter(())
        self._close()


def open_feed(uri: str, name: str, timeout_s: Tuple[float, float]) -> Feed:
    """Open a network address.

    Args:
        name: What to call it in errors.
        timeout_s: For opening, and for each read.

    Raises:
        FFmpegError: Of PyAV; its text holds the address with its password.
        RefusedError: If it sends no video that FFmpeg knows.
    """
    if not uri.lower().startswith("http"):
        return _demuxed(_container(uri, options=_options(uri), timeout=timeout_s), name)
    raw = _container(uri, format="data", options={"raw_packet_size": str(_PIECE_BYTES)}, timeout=timeout_s)
    try:
        pieces = _pieces(raw)
        head, is_jpegs = _look(pieces)
        if is_jpegs:
            return _JpegFeed(itertools.chain([head], pieces), raw.close, live=_has_no_size(raw))
        is_text = head.isascii() and b"\0" not in head
        if _has_no_size(raw) and not is_text:  # a camera may take one viewer only: no second connection
            return _demuxed(_container(_Replay(itertools.chain([head], pieces)), options=_options(uri)), name, raw)
    except BaseException:
        raw.close()
        raise
    raw.close()
    return _demuxed(_container(uri, options=_options(uri), timeout=timeout_s), name)


def open_film_feed(path: Path) -> Feed:
    """Open a video file, or one that a motion JPEG stream was saved to.

    Raises:
        FFmpegError: Of PyAV.
        OSError: If it cannot be read.
        RefusedError: If it holds no video that FFmpeg knows.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(open(path, "rb"))
        pieces = iter(lambda: file.read(_PIECE_BYTES), b"")
        head, is_jpegs = _look(pieces)
        if is_jpegs:
            feed: Feed = _JpegFeed(itertools.chain([head], pieces), file.close, live=False)
            opened.pop_all()
        else:  # "file:", because a:b.mp4 is no scheme
            feed = _demuxed(_container(f"file:{path}"), str(path), live=False)
    feed.local = True
    return feed


def _container(target: Any, **options: Any) -> Any:
    """PyAV's container; a title or comment in another encoding than UTF-8 does not make a film unreadable."""
    return pyav().open(target, metadata_errors="replace", **options)


def _pieces(raw: Any) -> Iterator[bytes]:
    """The bytes that the server sends, piece by piece."""
    try:
        for packet in raw.demux():
            if packet.size:
                yield bytes(packet)
    except OSError as err:
        if err.errno != errno.EIO:  # FFmpeg's word for the end of what had no length
            raise


class _Replay:
    """Pieces as a file that cannot be sought in."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        given, self._left = self._left[:size], self._left[size:]
        return given


def _look(pieces: Iterator[bytes]) -> Tuple[bytes, bool]:
    """The first bytes, and whether they begin a row of JPEGs."""
    head = b""
    for piece in pieces:
        head += piece
        found = holds_jpegs(head)
        if found is not None:
            return head, found
    return head, False


def _demuxed(container: Any, name: str, below: Any = None, *, live: Optional[bool] = None) -> Feed:
    """The feed of a container, which is closed where it has none."""
    if live is None:
        # A length is what recordings have; a camera's server may claim one all the same.
        live = name.startswith(("rtsp", "rtp")) or (container.duration is None and _has_no_size(container))
    try:
        return DemuxedFeed(container, name, live=live, below=below)
    except BaseException:
        container.close()
        raise


def _packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of one stream. PyAV looks at the end for each that FFmpeg found, also one that damage made up."""
    with contextlib.suppress(IndexError):
        yield from container.demux(stream)


def _has_no_size(container: Any) -> bool:
    """Whether the server did not say how many bytes it will send; a play list's own size says nothing."""
    return int(container.size or 0) <= 0 or _is_playlist(container)


def _is_playlist(container: Any) -> bool:
    return bool(container.format.name.startswith(("hls", "dash", "sdp")))


def _options(uri: str) -> Dict[str, str]:
    options = dict(_OPTIONS)
    if not uri.lower().startswith("rtsp"):
        del options["rtsp_flags"]
    if uri.lower().startswith("http"):  # a recording must not lose what was read to learn its format
        del options["fflags"]
    return options


def _video_of(container: Any, name: str) -> Any:
    videos = container.streams.video
    if not videos:
        there = ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
        raise RefusedError(
            f"{name} sends no video that FFmpeg knows, but {there}",
            why=f"it holds {there}",
            hint="choose H.264 in the camera's settings",
        )
    known = [stream for stream in videos if stream.codec_context is not None]
    if not known:
        raise RefusedError(
            f"{name} sends a codec that FFmpeg does not know",
            why="this FFmpeg does not know its codec",
            hint="choose H.264 or MJPEG in the camera's settings",
        )
    return next((stream for stream in known if not is_cover(stream)), known[0])


def is_cover(stream: Any) -> bool:
    """Whether it is the picture of a cover, which some recorders put before the video; PyAV 12 does not tell."""
    return bool(int(getattr(stream, "disposition", 0)) & _ATTACHED_PICTURE)
