"""Frames of OpenCV's VideoCapture: video files here; V4L2 cameras and GStreamer pipelines in their own modules."""

from __future__ import annotations

import functools
import logging
import os
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import numpy as np

from rtda_deploy.errors import SourceError
from rtda_deploy.pictures.whole import jpeg_is_whole
from rtda_runtime._opencv import opencv
from rtda_runtime.sources.base import Frame, GrabbingSource, frame_rate
from rtda_runtime.sources.film_errors import film_error
from rtda_runtime.sources.lateness import Lateness
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["CaptureSource", "open_video"]

_log = logging.getLogger(__name__)


class CaptureSource(GrabbingSource):
    """Frames of an opened ``cv2.VideoCapture``. The first one is read at once: it proves the stream and gives its size.

    Args:
        lost: Makes the error for a source that gives no frame (any more), given what happened.
        stamp_of: When the driver captured the frame just grabbed, or None; given the capture, the time now (ns), and
            whether such stamps were believed before.
        jpegs: The capture was told to give JPEGs undecoded, so that one that is cut off can be told from a whole one.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        *,
        live: bool,
        lost: Callable[[str], SourceError],
        stamp_of: Callable[[Any, int, bool], Optional[int]] = lambda capture, now_ns, known: None,
        jpegs: bool = False,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._cv2: Any = opencv("to read videos and cameras")
        self.name = name
        self._capture: Any = capture
        self._lost = lost
        self._stamp_of = stamp_of
        self._jpegs = jpegs
        self._clock = clock
        self._pool = BufferPool()
        self._shape: Optional[Tuple[int, ...]] = None
        rate, count = capture.get(self._cv2.CAP_PROP_FPS), capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self.fps = frame_rate(rate)
        self.num_frames = int(count) if 0 < count < 1e9 else None
        self.live = live and self.num_frames is None
        self.stamp = "arrival" if self.live else "read"
        self._lateness = Lateness() if self.live else None
        self._recorded_ns = -1
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
        start_ns = waiting_ns = self._clock()
        while self._capture.grab():
            captured_ns = self._captured_ns(waiting_ns)
            if captured_ns is None:
                self._leave_out_old()
            else:
                good, image = self._retrieve()
                if image is not None:
                    self._shape = image.shape
                    recorded_ns = None if self.live else self._recorded()
                    return Frame(image=image, captured_ns=captured_ns, sequence=self._next, recorded_ns=recorded_ns)
                if not good:
                    break
                self._leave_out_damaged()
            waiting_ns = self._clock()
            if self.live and timeout_s and captured_ns is not None and (waiting_ns - start_ns) / 1e9 > timeout_s:
                break
        if self.live and self._given:
            waited_s = (self._clock() - start_ns) / 1e9
            late = f"gave no frame for {waited_s:.1f} s" if waited_s >= timeout_s > 0 else "ended or was disconnected"
            raise self._lost(f"{late}, after {self._given} frames")
        self._tell_end()
        return None

    def _captured_ns(self, waiting_ns: int) -> Optional[int]:
        """When the frame just grabbed was captured; None for one that is old."""
        now_ns = self._clock()
        driver_ns = self._stamp_of(self._capture, now_ns, self.stamp == "driver")
        if driver_ns is not None:
            self.stamp = "driver"
        if self._lateness is None:
            return now_ns
        if self._lateness.is_old(now_ns, now_ns - waiting_ns, driver_ns):
            return None
        return now_ns - self._lateness.lag_ns if driver_ns is None else driver_ns

    def _retrieve(self) -> Tuple[bool, Optional[np.ndarray]]:
        """Whether there was anything, and the picture if it is a whole one."""
        wanted = None if self._jpegs or self._shape is None else self._pool.take(self._shape)
        good, image = self._capture.retrieve(wanted)
        if not good or image is None or not image.size:
            return False, None
        if self._jpegs:
            whole = jpeg_is_whole(image.tobytes())
            return True, self._cv2.imdecode(image.reshape(-1), self._cv2.IMREAD_COLOR) if whole else None
        if image.ndim == 2:
            image = self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2BGR)
        return True, image

    def _recorded(self) -> Optional[int]:
        """Time in the recording of the frame just grabbed; by the rate where this OpenCV does not know it."""
        if self._jpegs or not self.fps:
            return round(self._next / self.fps * 1e9) if self.fps else None
        told_ns: int = round(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
        if self._recorded_ns >= 0 and told_ns <= self._recorded_ns:
            told_ns = self._recorded_ns + round(1e9 / self.fps)
        self._recorded_ns = told_ns
        return told_ns

    def _tell_end(self) -> None:
        if self.num_frames is not None and self._given and (self._next < self.num_frames or self.damaged):
            told = f"{self.damaged} damaged and left out" if self.damaged else "the rest is missing or damaged"
            _log.warning("%s ended after %d of %d frames: %s", self.name, self._given, self.num_frames, told)


def open_video(path: Path) -> CaptureSource:
    """Open a video file that was checked to exist; used where PyAV, which knows more about each frame, is missing.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """
    cv2: Any = opencv("to read videos")

    name = os.path.abspath(path)  # in a relative name FFmpeg takes a colon for the end of a scheme
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture = cv2.VideoCapture(name)  # JetPack's OpenCV reads files through GStreamer
    if not capture.isOpened():
        raise film_error(path, None)
    is_jpegs = int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter_fourcc(*"MJPG")
    jpegs = is_jpegs and capture.set(cv2.CAP_PROP_FORMAT, -1)  # packets as they are, where this OpenCV can
    return CaptureSource(capture, str(path), live=False, lost=functools.partial(film_error, path), jpegs=jpegs)
