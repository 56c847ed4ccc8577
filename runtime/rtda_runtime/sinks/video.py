"""Video files that browsers play: ``.mp4`` (H.264) and ``.webm`` (VP8). A file gets its name once it is complete.

PyAV encodes both, with the FFmpeg it brings along. Without it OpenCV is tried, because JetPack's can write H.264 (pip's
cannot: no browser plays its MPEG-4, and its VP9 reaches 3 frames of 960x540 a second). A format that neither can write
is an error; it is not replaced by another one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, Type, Union

import numpy as np

from rtda_deploy.errors import ConfigError, FileAccessError, FrameError, MissingPackageError
from rtda_deploy.optional import available, install_line, require
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.preprocess import check_frame
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import FileInProgress, Sink
from rtda_runtime.sinks.kinds import SinkContext
from rtda_runtime.sinks.overlay import Overlay
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["VideoSink", "opener"]

_log = logging.getLogger(__name__)

_AV_CODECS = {".mp4": "libx264", ".webm": "libvpx"}
_CV_CODECS = {".mp4": "avc1", ".webm": "VP80"}
_AV_OPTIONS = {
    # 81 frames of 960x540 a second on one core, at a third of mpeg4's size. The tags say what swscale does: BT.601.
    "libx264": {
        "preset": "veryfast",
        "crf": "23",
        "x264-params": "colorprim=bt709:transfer=bt709:colormatrix=smpte170m",
    },
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "4M"},
}
# In the order in which they are shown; else the length of an .mp4, where players stop, forgets the last uneven ones.
_AV_TIMED_OPTIONS = {"bf": "0"}
_AV_CONTAINER_OPTIONS = {".mp4": {"movflags": "+faststart"}}  # the index first: plays while it is loaded
_THREADS = 2  # of the encoder; more would take the network's
_MOST_PX = {".mp4": 16384, ".webm": 16382}  # of a side: what libx264 and VP8's 14 bits take
_TICKS = 90_000  # a second; the clock of MPEG, exact for 24, 25, 29.97, 30, 50 and 60 frames a second
_UNEVEN_NS = 200_000_000  # by which a film may be shorter than what it shows, before that is said
_LEAST_TICKS = 90  # between two frames: WebM counts milliseconds
_LARGEST_PTS_BASE = 65535  # of the frame rate's fraction; MPEG-4 containers take no more

_USUAL_FPS = 30.0  # of a film whose source names no rate


def opener(address: str, context: SinkContext) -> Callable[[], VideoSink]:
    """What opens the film of ``run --save``, with the overlay drawn."""
    fps = context.fps or _USUAL_FPS
    return lambda: VideoSink(address, fps, overlay=context.overlay(), timed=context.live)


class VideoSink(Sink):
    """Writes frames to a video file, under a temporary name until :meth:`close`.

    Args:
        path: ``.mp4`` or ``.webm``.
        fps: Frame rate of the file.
        size_wh: Width and height; None: those of the first frame. An odd side gets its last row or column twice,
            because the format has even sides only.
        overlay: Draws each result of a pipeline; None: the frame is written as it was captured.
        timed: Each result of a camera stands at the time it was captured, so that its film plays at its true speed
            though frames were dropped; ``fps`` is then the usual rate only. The results of a recording that tells its
            own times (``recorded_ns``) keep them in any case. PyAV only; OpenCV writes at a constant rate.

    Raises:
        ConfigError: If the suffix, rate or size makes no sense.
        FileAccessError: If the file cannot be written; then nothing is left under ``path``.
        MissingPackageError: If nothing here can encode that kind of file.
    """

    name = "video"
    keeps = True

    def __init__(
        self,
        path: Union[str, Path],
        fps: float,
        size_wh: Optional[Tuple[int, int]] = None,
        *,
        overlay: Optional[Overlay] = None,
        timed: bool = False,
    ) -> None:
        self.path = Path(path)
        self.frames = 0
        if self.path.suffix.lower() not in _AV_CODECS:
            raise ConfigError(
                f"cannot write a {self.path.suffix or 'nameless'} video: {path}",
                hint="name it .mp4 or .webm; browsers play both",
            )
        if not 0 < fps <= 1000:
            raise ConfigError(f"fps must lie between 0 and 1000, got {fps:g}", hint="30 suits most cameras")
        if size_wh is not None and min(size_wh) < 1:
            raise ConfigError(f"size {size_wh[0]}x{size_wh[1]} makes no sense", hint="leave it out: the first frame's")
        self.fps = float(fps)
        self.size_wh = size_wh
        self._overlay = overlay
        self._timed = timed
        self._pictures = BufferPool()
        self._lock = threading.Lock()  # an encoder that is closed while it encodes takes the process with it
        self._encoder: Union[_AvEncoder, _CvEncoder, None] = None
        self._writer = _writer_kind(self.path)
        self._file = FileInProgress(self.path)

    def write(self, item: Union[Result, np.ndarray]) -> Mapping[str, float]:
        """Add a frame: a result, or a picture uint8 (H, W, 3) BGR. Gives ms for ``overlay`` and ``encode``.

        Raises:
            FrameError: If the picture has another size than the first.
            FileAccessError: If the disk is full; the file is given up and removed.
        """
        start = time.perf_counter_ns()
        spent_ms: Dict[str, float] = {}
        picture = item.frame if isinstance(item, Result) else item
        if isinstance(item, Result) and self._overlay is not None:
            height, width = item.mask.shape
            shape = (height, width if item.compared is None else 2 * width, 3)
            picture = self._overlay.draw_result(item, out=self._pictures.take(shape))
            drawn = time.perf_counter_ns()
            spent_ms["overlay"] = (drawn - start) / 1e6
            start = drawn
        with self._lock:
            self._encode(picture, self._shown_ns(item) if isinstance(item, Result) else None)
        spent_ms["encode"] = (time.perf_counter_ns() - start) / 1e6
        return spent_ms

    def close(self) -> None:
        """Finish the file and give it its name; without a frame there is no file. Calling it again does nothing.

        Any thread may call it: it waits for a frame that is being written, or for another thread that closes.

        Raises:
            FileAccessError: If the disk is full; then nothing is left under the name.
        """
        with self._lock:
            self._finish()

    def _shown_ns(self, result: Result) -> Optional[int]:
        """When the film shows it, from any beginning; None: after the one before, at the film's rate."""
        if result.recorded_ns is not None:
            return result.recorded_ns
        return result.captured_ns if self._timed else None

    def _finish(self) -> None:
        if self._file.ended:
            return
        if self._encoder is None:
            self._file.give_up_empty("written")
            return
        try:
            self._encoder.finish()
        except OSError as err:
            raise self._failed(err) from err
        self._file.complete()

    def _encode(self, picture: np.ndarray, shown_ns: Optional[int]) -> None:
        if self._file.ended:
            raise FileAccessError(f"video {self.path} is closed", hint="make a new sink for a new file")
        check_frame(picture)
        height, width = picture.shape[:2]
        self.size_wh = self.size_wh or (width, height)
        if (width, height) != self.size_wh:
            raise FrameError(
                f"frame is {width}x{height}, the video is {self.size_wh[0]}x{self.size_wh[1]}",
                hint="a video has one size: cv2.resize the frame, or write several files",
            )
        most = _MOST_PX[self.path.suffix.lower()]
        if max(width, height) > most:
            raise FrameError(
                f"frame is {width}x{height}, the side of a {self.path.suffix} video is {most} pixels at most",
                hint="make the picture smaller, or save the masks as pictures: --masks DIR",
            )
        try:
            if self._encoder is None:
                even_wh = (width + width % 2, height + height % 2)
                self._encoder = self._writer(self._file.temporary, self.fps, even_wh, timed=shown_ns is not None)
            self._encoder.add(_even(picture), shown_ns)
        except OSError as err:
            raise self._failed(err) from err
        self.frames += 1

    def _failed(self, err: OSError) -> FileAccessError:
        if self._encoder is not None:
            self._encoder.abandon()
        return self._file.failed(err)


class _AvEncoder:
    """One open file of PyAV; its errors are ``OSError``."""

    def __init__(self, path: Path, fps: float, size_wh: Tuple[int, int], *, timed: bool = False) -> None:
        self._av: Any = require("av", extra="runtime", purpose="to write videos")
        suffix = path.suffix.lower()
        codec = _AV_CODECS[suffix]
        self._next = 0
        with _os_errors(self._av):
            target = f"file:{path}"  # a colon in a relative name is taken for the end of a scheme
            self._container: Any = self._av.open(target, "w", options=_AV_CONTAINER_OPTIONS.get(suffix, {}))
            self._rate, self._timed = Fraction(fps).limit_denominator(_LARGEST_PTS_BASE), timed
            self._stream: Any = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height = size_wh
            self._stream.pix_fmt = "yuv420p"  # the only layout every browser decodes
            self._stream.options = {**_AV_OPTIONS[codec], **(_AV_TIMED_OPTIONS if timed else {})}
            self._stream.codec_context.thread_count = _THREADS
            self._time_base = Fraction(1, _TICKS) if timed else 1 / self._rate
            self._stream.codec_context.time_base = self._time_base
            self._first_ns: Optional[int] = None

    def add(self, picture: np.ndarray, shown_ns: Optional[int] = None) -> None:
        frame = self._av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = self._place(shown_ns), self._time_base
        with _os_errors(self._av):
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def _place(self, shown_ns: Optional[int]) -> int:
        """The time of the next frame, later than the one before; in units of the time base."""
        if shown_ns is None:
            place, step = self._next, round(1 / (self._rate * self._time_base))
        else:
            self._first_ns = shown_ns if self._first_ns is None else self._first_ns
            shown = round((shown_ns - self._first_ns) / 1e9 / self._time_base)
            place, step = max(self._next, shown), _LEAST_TICKS if self._timed else 1
        self._next = place + step
        return place

    def finish(self) -> None:
        with _os_errors(self._av):
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()

    def abandon(self) -> None:
        try:
            self._container.close()
        except (OSError, self._av.FFmpegError) as err:
            _log.debug("closing a failed video: %s", err)


@contextlib.contextmanager
def _os_errors(av: Any) -> Iterator[None]:
    """Turn PyAV's errors, of which only some are ``OSError``, into ``OSError``."""
    try:
        yield
    except av.FFmpegError as err:
        if isinstance(err, OSError):
            raise
        raise OSError(getattr(err, "errno", 0) or errno.EIO, getattr(err, "strerror", "") or str(err)) from err


class _CvEncoder:
    """The same of OpenCV, which reports no error while it writes, so that the file is checked at its end."""

    def __init__(self, path: Path, fps: float, size_wh: Tuple[int, int], *, timed: bool = False) -> None:
        self._cv2: Any = opencv("to write videos")
        self._path = path
        self._count = 0
        self._period_ns = 1e9 / fps
        self._times_ns: Tuple[int, int] = (0, 0)  # first and newest
        self._writer: Any = _cv_writer(path, fps, size_wh)

    def add(self, picture: np.ndarray, shown_ns: Optional[int] = None) -> None:
        if shown_ns is not None:
            self._times_ns = (self._times_ns[0] if self._count else shown_ns, shown_ns)
        self._writer.write(picture)
        self._count += 1

    def finish(self) -> None:
        self._writer.release()
        late_ns = self._times_ns[1] - self._times_ns[0] - (self._count - 1) * self._period_ns
        if self._times_ns[1] and abs(late_ns) > _UNEVEN_NS:
            _log.warning(
                "%s plays %.1f s %s than it was filmed: OpenCV writes at a constant rate; %s keeps the times",
                self._path, abs(late_ns) / 1e9, "shorter" if late_ns > 0 else "longer", install_line("av", "runtime"),
            )  # fmt: skip
        check = self._cv2.VideoCapture(os.path.abspath(self._path))
        written = 0
        while written < self._count and check.grab():
            written += 1
        check.release()
        if written != self._count:
            raise OSError(
                errno.ENOSPC if _disk_is_full(self._path) else errno.EIO, f"only {written} of {self._count} frames"
            )

    def abandon(self) -> None:
        self._writer.release()


def _cv_writer(path: Path, fps: float, size_wh: Tuple[int, int]) -> Any:
    cv2: Any = opencv("to write videos")
    return cv2.VideoWriter(
        os.path.abspath(path), cv2.VideoWriter_fourcc(*_CV_CODECS[path.suffix.lower()]), fps, size_wh
    )


def _writer_kind(path: Path) -> Union[Type[_AvEncoder], Type[_CvEncoder]]:
    """The encoder for this kind of file, PyAV first.

    Raises:
        MissingPackageError: If there is none.
    """
    if available("av"):
        return _AvEncoder
    if _opencv_encodes(path.suffix.lower()):
        return _CvEncoder
    raise MissingPackageError(
        f"nothing here can write {path.suffix} videos that a browser plays: package av is not installed",
        hint=install_line("av", "runtime"),
    )


def _opencv_encodes(suffix: str) -> bool:
    """Whether this OpenCV opens a writer for ``suffix``; only trying tells."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rtda-") as folder:
        writer = _cv_writer(Path(folder) / f"probe{suffix}", 25.0, (64, 64))
        opened = bool(writer.isOpened())
        if opened:
            writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
    return opened


def _disk_is_full(path: Path) -> bool:
    state = os.statvfs(str(path.parent))
    return state.f_bavail * state.f_frsize < 1 << 20


def _even(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)
