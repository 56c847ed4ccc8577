"""A video read by OpenCV, where PyAV is missing: frames are counted by reading over them, and reached the same way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence

import numpy as np

from rtda_runtime._opencv import opencv
from rtda_runtime.sources.base import frame_rate
from rtda_runtime.sources.film_errors import film_error
from rtda_runtime.sources.footage.base import RecordedFrame, Recording

__all__ = ["OpenCVRecording"]

_USUAL_FPS = 25.0  # where nothing says the rate
_NOTE = (
    "read by OpenCV: key frames are not known, damaged frames are not told from whole ones; pip install av knows both"
)


class OpenCVRecording(Recording):
    """A video whose frames are all read over up to the last that is wanted; only wanted ones are converted.

    Args:
        path: A file that was checked to be there.

    Raises:
        SourceError: If it is no video, or holds no frame that can be decoded.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        self._cv2: Any = opencv("to read videos")
        self._path = path
        self.name = str(path)
        self.files = (path,)
        self.times_ns = self._times()
        self.keys = np.arange(len(self.times_ns)) == 0
        self.notes = (_NOTE,)
        first = next(self._images([0]), None)
        if first is None:
            raise film_error(self._path, "holds no frame that can be decoded")
        self.size_wh = (first[1].shape[1], first[1].shape[0])

    def frames(self, numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        given = 0
        for number, image in self._images(numbers):
            time_ns = int(self.times_ns[number])
            given += 1
            yield RecordedFrame(image, number, time_ns, time_ns)
        self.damaged += len(numbers) - given
        if len(numbers) and not given:
            raise film_error(
                self._path, f"holds no frame that can be decoded among the {len(numbers)} that were asked for"
            )

    def _images(self, numbers: Sequence[int]) -> Iterator[Any]:
        with self._opened() as capture:
            place = -1
            for number in numbers:
                while place < number:
                    if not capture.grab():
                        return
                    place += 1
                good, image = capture.retrieve()
                if good and image is not None and image.size:
                    yield int(number), self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image

    def _times(self) -> np.ndarray:
        """When each frame is shown; by the rate where this OpenCV does not know a time later than the one before."""
        found: List[int] = []
        with self._opened() as capture:
            rate: Optional[float] = frame_rate(capture.get(self._cv2.CAP_PROP_FPS))
            step_ns = round(1e9 / (rate or _USUAL_FPS))
            while capture.grab():
                told_ns = round(capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
                found.append(told_ns if not found or told_ns > found[-1] else found[-1] + step_ns)
        times = np.array(found, np.int64)
        return times - times[0] if len(times) else times

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        name = os.path.abspath(self._path)  # in a relative name FFmpeg takes a colon for the end of a scheme
        capture = self._cv2.VideoCapture(name, self._cv2.CAP_FFMPEG)
        if not capture.isOpened():
            capture = self._cv2.VideoCapture(name)  # JetPack's OpenCV reads files through GStreamer
        try:
            if not capture.isOpened():
                raise film_error(self._path, None)
            yield capture
        finally:
            capture.release()
