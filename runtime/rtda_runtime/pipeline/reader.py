"""The thread that owns a source: reads it and closes it."""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple, Optional

from rtda_runtime.sources import Frame, Source
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread
from rtda_runtime.threads.pace import Pace

__all__ = ["Captured", "Reader"]


class Captured(NamedTuple):
    """A frame, and the milliseconds that reading it took."""

    frame: Frame
    capture_ms: float


class Reader(NamedThread):
    """``rtda-capture``: source -> mailbox, until the source ends or ``stop`` is set. An error ends the mailbox.

    Args:
        ready: Nothing is read before it is set: frames read while the network warms up would only be dropped.
        pace: Which frames to take; None: all.
    """

    def __init__(
        self,
        source: Source,
        frames: Mailbox[Captured],
        *,
        ready: threading.Event,
        stop: threading.Event,
        timeout_s: float,
        pace: Optional[Pace],
        clock: Callable[[], int],
    ) -> None:
        super().__init__("rtda-capture", self._read)
        self.source = source
        self.started_ns: Optional[int] = None
        self._frames = frames
        self._ready = ready
        self._stop_reading = stop
        self._timeout_s = timeout_s
        self._pace = pace
        self._clock = clock

    def _read(self) -> None:
        error: Optional[BaseException] = None
        try:
            while not self._ready.wait(WAKE_S):
                if self._stop_reading.is_set():
                    return
            self.started_ns = self._clock()
            while not self._stop_reading.is_set() and self._read_one():
                pass
        except BaseException as err:  # whatever it is, it belongs to whoever takes the frames
            error = err
        finally:
            self._frames.end(error)
            self.source.close()

    def _read_one(self) -> bool:
        if self._pace is not None and not self.source.live:
            self._pace.wait(self._stop_reading)
        start = self._clock()
        frame = self.source.read(self._timeout_s)
        if frame is None:
            return False
        if self._pace is None or not self.source.live or self._pace.is_due(frame.captured_ns):
            self._frames.put(Captured(frame, (self._clock() - start) / 1e6))
        else:
            self._frames.pass_over()
        return True
