"""Frames that are due by a schedule which nothing delays: an open loop, as a camera is one.

Where the next frame comes only after the one before is finished, a stall delays the frames behind it and their waiting
is never seen (coordinated omission). Here a frame is due when it is due; what finds nobody ready waits, and what a
newer one overtakes is missed and counted.
"""

from __future__ import annotations

import threading
from typing import Callable, Optional

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime.sources import Frame, Source

__all__ = ["Schedule", "ScheduledSource"]

_LATE = 0.05  # share of a period: a frame that begins later than that after it was due is late


class Schedule:
    """When frames are due: at a fixed rate from the first one on, whatever else happens. Any thread may call it.

    Attributes:
        missed: Frames since :meth:`begin` that were not taken, because a newer one was due.
        late: Those, and the frames that began notably later than they were due.
    """

    def __init__(self, rate_hz: float, clock: Callable[[], int]) -> None:
        self._period_ns = 1e9 / rate_hz
        self._clock = clock
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Start again, with the first frame due one period from now."""
        with self._lock:
            self.missed = self.late = 0
            self._first_ns = self._clock() + round(self._period_ns)
            self._taken = -1

    def wait(self, sleep: Callable[[float], object]) -> int:
        """Wait until a frame is due: the newest that is, else the next; those before it are missed.

        Args:
            sleep: Waits for so many seconds.

        Returns:
            When the frame was due, by the clock.
        """
        with self._lock:
            newest = max(self._taken + 1, int((self._clock() - self._first_ns) // self._period_ns))
            missed = newest - self._taken - 1
            self.missed += missed
            self.late += missed
            self._taken = newest
            due_ns = self._first_ns + round(newest * self._period_ns)
        early_ns = due_ns - self._clock()
        if early_ns > 0:
            sleep(early_ns / 1e9)
        with self._lock:
            self.late += self._clock() - due_ns > _LATE * self._period_ns
        return due_ns


class ScheduledSource(Source):
    """A recording that delivers as a camera: each frame when it is due, stamped with that moment.

    ``read`` waits first and reads then, so that the time to decode is part of the frame's age; a frame that could not
    be read before the next one was due is missed.
    """

    def __init__(self, source: Source, schedule: Schedule, closed: Optional[threading.Event] = None) -> None:
        self.name = source.name
        self.live = True
        self.fps = source.fps
        self.size_wh = source.size_wh
        self._source = source
        self._schedule = schedule
        self._closed = closed or threading.Event()  # is waited on, so that closing ends a wait

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        def sleep(seconds: float) -> None:
            if seconds > timeout_s:
                raise CameraError(f"{self.name} gave no frame for {timeout_s:g} s", hint="a higher --rate")
            if self._closed.wait(seconds):
                raise SourceError(f"{self.name} is closed", hint="open it again")

        due_ns = self._schedule.wait(sleep)
        frame = self._source.read(timeout_s)
        return None if frame is None else Frame(image=frame.image, captured_ns=due_ns, sequence=frame.sequence)

    def interrupt(self) -> None:
        """End a wait for the next frame."""
        self._closed.set()

    def close(self) -> None:
        self._closed.set()
        self._source.close()
