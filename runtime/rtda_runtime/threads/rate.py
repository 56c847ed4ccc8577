"""Rates: a schedule that nothing delays, and a limit for a source that gives frames faster."""

from __future__ import annotations

import threading
from typing import Callable, Optional

__all__ = ["RateLimit", "Schedule"]

_LATE = 0.05  # share of a period: a frame that begins later than that after its turn is late
_EARLY = 0.25  # of a period: a camera of the very same rate is never exactly on time


class Schedule:
    """When frames are due: at a fixed rate from the first turn on, whatever else happens.

    An open loop, as a camera is one. Where the next frame comes only after the one before is finished, a stall delays
    the frames behind it and their waiting is never seen (coordinated omission). Here a frame is due when it is due;
    what finds nobody ready waits, and what a newer one overtakes is missed and counted.

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


class RateLimit:
    """Which frames to take of a source that gives them faster.

    A recording is read when the time has come. A camera cannot be told to wait, because frames would grow old in its
    driver; so of a camera the frames that come too early are passed over, and each one taken is fresh.

    Args:
        rate_hz: Frames per second, above 0.
        clock: Nanoseconds.
    """

    def __init__(self, rate_hz: float, clock: Callable[[], int]) -> None:
        self.period_s = 1.0 / rate_hz
        self._period_ns = round(1e9 / rate_hz)
        self._clock = clock
        self._due_ns: Optional[int] = None

    def wait(self, stop: threading.Event) -> None:
        """Wait until a frame is due, or until ``stop`` is set. Who was late gets no burst afterwards."""
        now = self._clock()
        due = now if self._due_ns is None else self._due_ns
        while now < due and not stop.wait((due - now) / 1e9):
            now = self._clock()
        self._due_ns = self._after(due, now)

    def is_due(self, captured_ns: int) -> bool:
        """Whether the frame captured then is one to take."""
        due = captured_ns if self._due_ns is None else self._due_ns
        if captured_ns < due - round(_EARLY * self._period_ns):
            return False
        self._due_ns = self._after(due, captured_ns)
        return True

    def _after(self, due_ns: int, now_ns: int) -> int:
        """When the frame after this one is due; who was late by a whole period begins anew from now."""
        return (now_ns if now_ns - due_ns >= self._period_ns else due_ns) + self._period_ns
