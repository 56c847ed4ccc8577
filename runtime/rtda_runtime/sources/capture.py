"""What OpenCV's VideoCapture reads: video files here, V4L2 cameras and GStreamer pipelines in the modules beside."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

from rtda_deploy.errors import SourceError
from rtda_runtime._opencv import opencv
from rtda_runtime.buffers import BufferPool
from rtda_runtime.sources.base import Frame, GrabbingSource, frame_rate

__all__ = ["CaptureSource", "open_video"]

_log = logging.getLogger(__name__)


class CaptureSource(GrabbingSource):
    """Frames of an opened ``cv2.VideoCapture``. The first one is read at once: it proves the stream and gives its size.

    Args:
        lost: Makes the error for a source that gives no frame (any more), given what happened.
        stamp_of: When the driver captured the frame just grabbed, given the capture and the time now (ns), or None.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        *,
        live: bool,
        lost: Callable[[str], SourceError],
        stamp_of: Callable[[Any, int], Optional[int]] = lambda capture, now_ns: None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        cv2: Any = opencv("to read videos and cameras")
        self.name = name
        self._capture: Any = capture
        self._lost = lost
        self._stamp_of = stamp_of
        self._clock = clock
        self._pool = BufferPool()
        self._shape: Optional[Tuple[int, ...]] = None
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = frame_rate(rate)
        self.num_frames = int(count) if 0 < count < 1e9 else None
        self.live = live and self.num_frames is None
        self.stamp = "arrival" if self.live else "read"
        self._first = self._grab(0.0)
        if self._first is None:
            self.close()
            raise lost("holds no frame that can be decoded")
        self.size_wh = (self._first.image.shape[1], self._first.image.shape[0])

    def close(self) -> None:
        capture, self._capture, self._first, self._closed = self._capture, None, None, True
        if capture is not None:
            capture.release()

    def _grab(self, timeout_s: float) -> Optional[Frame]:
        start = self._clock()
        good, captured_ns, image = self._capture.grab(), self._clock(), None
        if good:
            driver_ns = self._stamp_of(self._capture, captured_ns)
            if driver_ns is not None:
                captured_ns, self.stamp = driver_ns, "driver"
            good, image = self._capture.retrieve(self._pool.take(self._shape) if self._shape is not None else None)
        if good and image is not None and image.size:
            if image.ndim == 2:
                cv2: Any = opencv("to read videos and cameras")
                image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            self._shape = image.shape
            return Frame(image=image, captured_ns=captured_ns, sequence=self._next)
        if self.live and self._next:
            waited_s = (self._clock() - start) / 1e9
            late = f"gave no frame for {waited_s:.1f} s" if waited_s >= timeout_s > 0 else "ended or was disconnected"
            raise self._lost(f"{late}, after {self._next} frames")
        if self.num_frames is not None and 0 < self._next < self.num_frames:
            _log.warning(
                "%s ended after %d of %d frames: the rest is missing or damaged", self.name, self._next, self.num_frames
            )
        return None


def open_video(path: Path) -> CaptureSource:
    """Open a video file that was checked to exist.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """
    cv2: Any = opencv("to read videos")

    def lost(happened: str) -> SourceError:
        return SourceError(
            f"video {path} {happened}", hint="is it damaged, or no video? Try it in a player: ffplay, vlc"
        )

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture = cv2.VideoCapture(str(path))  # JetPack's OpenCV reads files through GStreamer
    if not capture.isOpened():
        raise lost("cannot be opened as a video")
    return CaptureSource(capture, str(path), live=False, lost=lost)
