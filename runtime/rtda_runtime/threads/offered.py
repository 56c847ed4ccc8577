"""Frames that are due by a schedule which nothing delays: an open loop, as a camera or a bus is one.

Where the next frame is offered only after the one before is finished, a stall delays the frames behind it and their
waiting is never seen (coordinated omission). Here a frame is due when it is due; what finds nobody ready waits, and
what a newer one overtakes is missed and counted.
"""

from __future__ import annotations

import threading
from typing import Callable, Optional

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime.sources import Frame, Source

__all__ = ["OfferedSource", "Schedule"]

_LATE = 0.05  # share of a period: a frame that begins later than that after its turn is late


class Schedule:
    """When frames are due: at a fixed rate from the first turn on, whatever else happens.

    Attributes:
        missed: Frames since :meth:`begin` that were not taken, because a newer one was due.
    """

    def __init__(self, rate_hz: float, clock: Callable[[], int]) -> None:
        self.missed = 0
        self._period_ns = 1e9 / rate_hz
        self._clock = clock
        self._first_ns: Optional[int] = None
        self._turn = -1

    def begin(self) -> None:
        """Start again, with the first turn one period from now."""
        self.missed = 0
        self._first_ns = self._clock() + round(self._period_ns)
        self._turn = -1

    def next_ns(self) -> int:
        """When the frame to take now is due: the newest that is, else the next. The others are missed."""
        if self._first_ns is None:
            self.begin()
        assert self._first_ns is not None
        newest = int((self._clock() - self._first_ns) // self._period_ns)
        turn = max(self._turn + 1, newest)
        self.missed += turn - self._turn - 1
        self._turn = turn
        return self._first_ns + round(turn * self._period_ns)

    def is_late(self, due_ns: int, begun_ns: int) -> bool:
        """Whether a frame began notably later than it was due."""
        return begun_ns - due_ns > _LATE * self._period_ns


class OfferedSource(Source):
    """A recording that delivers as a camera: each frame when it is due, stamped with that moment.

    A frame that could not be read before the next one was due is missed. ``read`` waits first and reads then, so that
    the time to decode is part of the frame's age.
    """

    def __init__(
        self,
        source: Source,
        schedule: Schedule,
        clock: Callable[[], int],
        closed: Optional[threading.Event] = None,
    ) -> None:
        self.name = source.name
        self.live = True
        self.fps = source.fps
        self.size_wh = source.size_wh
        self.late = 0
        self._source = source
        self._schedule = schedule
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = closed or threading.Event()  # is waited on, so that closing ends a wait

    @property
    def missed(self) -> int:
        """Frames since :meth:`begin` that could not be read in time."""
        return self._schedule.missed

    def begin(self) -> None:
        """Start the schedule and its counts again."""
        with self._lock:
            self.late = 0
            self._schedule.begin()

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        with self._lock:
            due = self._schedule.next_ns()
        wait_s = (due - self._clock()) / 1e9
        if wait_s > timeout_s:
            raise CameraError(f"{self.name} gave no frame for {timeout_s:g} s", hint="a higher --rate")
        if wait_s > 0 and self._closed.wait(wait_s):
            raise SourceError(f"{self.name} is closed", hint="open it again")
        with self._lock:
            self.late += self._schedule.is_late(due, self._clock())
        frame = self._source.read(timeout_s)
        return None if frame is None else Frame(image=frame.image, captured_ns=due, sequence=frame.sequence)

    def interrupt(self) -> None:
        """End a wait for the next turn."""
        self._closed.set()

    def close(self) -> None:
        self._closed.set()
        self._source.close()
