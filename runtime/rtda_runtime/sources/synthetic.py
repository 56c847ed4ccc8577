"""``test://bars``: moving colour bars, the same on every machine; for demos, CI and measuring without a camera."""

from __future__ import annotations

import functools
import re
import threading
import time
from typing import Any, Callable, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from rtda_deploy.errors import CameraError, ConfigError
from rtda_deploy.sizes import parse_size
from rtda_runtime.sources.base import Frame, Source
from rtda_runtime.sources.kinds import CameraRequest
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["BarsSource", "bars", "opener"]

# The eight colour bars of television test pictures, BGR: white yellow cyan green magenta red blue black.
_COLOURS = np.array(
    [
        (255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0),
        (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0),
    ],
    np.uint8,
)  # fmt: skip
_STEP_PX = 4  # bars move this far per frame
_KNOWN = "known: fps=30 (0: as fast as it is read), size=640x480, frames=100"


def opener(address: str, request: CameraRequest) -> Callable[[], Source]:
    """What opens ``test://bars?fps=30&size=640x480&frames=100``.

    Raises:
        ConfigError: If another picture is named, or an option makes no sense.
    """
    parts = urlsplit(address)
    if parts.netloc != "bars":
        raise ConfigError(f"unknown test picture {address}", hint="known: test://bars?fps=30&size=640x480&frames=100")
    options: Any = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "fps" and re.fullmatch(r"\d+(\.\d+)?", value) and float(value) <= 1000:
            options["fps"] = float(value)
        elif key == "size":
            try:
                height, width = parse_size(value)
            except ConfigError as err:
                raise ConfigError(f"{address}: {err.message}", hint=_KNOWN) from err
            options["size_wh"] = (width, height)
        elif key == "frames" and re.fullmatch(r"[1-9]\d*", value):
            options["num_frames"] = int(value)
        else:
            raise ConfigError(f"{address}: {key}={value} makes no sense", hint=_KNOWN)
    return functools.partial(BarsSource, address, **options)


class BarsSource(Source):
    """Colour bars that move to the left, and a grey ramp below them that moves to the right.

    Args:
        fps: Frames per second it delivers at, as a camera does; 0: as fast as they are read, as a file does.
        num_frames: Ends after so many; None: never.
    """

    def __init__(
        self,
        name: str = "test://bars",
        *,
        fps: float = 30.0,
        size_wh: Tuple[int, int] = (640, 480),
        num_frames: Optional[int] = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        sleep: Optional[Callable[[float], object]] = None,
    ) -> None:
        self.name = name
        self.live = fps > 0
        self.fps = fps or None
        self.size_wh = size_wh
        self.num_frames = num_frames
        self._clock = clock
        self._interrupted = threading.Event()
        self._sleep = sleep or self._interrupted.wait
        self._pool = BufferPool()
        self._next = 0
        self._due_ns: Optional[int] = None
        self._closed = False

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        if self._closed or self._interrupted.is_set():
            raise self._closed_error()
        if self.num_frames is not None and self._next >= self.num_frames:
            return None
        self._wait(timeout_s)
        if self._interrupted.is_set():
            raise self._closed_error()
        width, height = self.size_wh
        image = bars(self._next, self.size_wh, self._pool.take((height, width, 3)))
        frame = Frame(image=image, captured_ns=self._clock(), sequence=self._next)
        self._next += 1
        return frame

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._closed = True

    def _wait(self, timeout_s: float) -> None:
        if self.fps is None:
            return
        now = self._clock()
        if self._due_ns is None:
            self._due_ns = now
        wait_s = (self._due_ns - now) / 1e9
        if wait_s > timeout_s:
            self._sleep(timeout_s)
            raise CameraError(
                f"{self.name} gave no frame for {timeout_s:g} s", hint="a slower fps needs a longer timeout"
            )
        if wait_s > 0:
            self._sleep(wait_s)
        # No burst after a late read: the next frame is due one period from now.
        self._due_ns = max(self._due_ns, now) + round(1e9 / self.fps)


def bars(number: int, size_wh: Tuple[int, int], out: Optional[np.ndarray] = None) -> np.ndarray:
    """Frame ``number`` as uint8 (H, W, 3) BGR; written into ``out`` where it is given."""
    width, height = size_wh
    column = np.arange(width)
    picture = np.empty((height, width, 3), np.uint8) if out is None else out
    split = height * 3 // 4
    picture[:split] = _COLOURS[(column + _STEP_PX * number) % width * 8 // width]
    ramp = (column - _STEP_PX * number) % width * 256 // width
    picture[split:] = ramp.astype(np.uint8)[:, None]
    return picture
