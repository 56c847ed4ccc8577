"""A limit for the rate of a source that gives frames faster."""

from __future__ import annotations

import threading
from typing import Callable, Optional

__all__ = ["RateLimit"]

_EARLY = 0.25  # of a period: a camera of the very same rate is never exactly on time


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
        """Wait until a frame is due, or until ``stop`` is set. Being late causes no burst afterwards."""
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
        """When the frame after this one is due; one that is late by a whole period counts from now."""
        return (now_ns if now_ns - due_ns >= self._period_ns else due_ns) + self._period_ns
