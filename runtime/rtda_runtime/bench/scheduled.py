"""A recording that a benchmark reads as if it were a camera."""

from __future__ import annotations

import threading
from typing import Callable, Optional

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime.sources import Frame, Source
from rtda_runtime.threads.rate import Schedule

__all__ = ["ScheduledSource"]


class ScheduledSource(Source):
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
