"""The thread that owns a source: reads it and closes it."""

from __future__ import annotations

from typing import Optional

from rtda_runtime.pipeline.flow import Captured, Flow
from rtda_runtime.threads.mailbox import WAKE_S
from rtda_runtime.threads.named import NamedThread
from rtda_runtime.threads.rate import RateLimit

__all__ = ["Reader"]


class Reader(NamedThread):
    """``rtda-capture``: source -> mailbox of frames, until the source ends or the flow does.

    An error of the source ends the mailbox: it is raised where the frames are taken, after those before it.

    Attributes:
        started_ns: When the first frame was asked for; None: not yet.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__("rtda-capture", self._read)
        self.started_ns: Optional[int] = None
        self._flow = flow
        rate = flow.options.rate
        self._limit = RateLimit(rate, flow.clock) if rate is not None else None

    def _read(self) -> None:
        flow = self._flow
        error: Optional[BaseException] = None
        try:
            while not flow.ready.wait(WAKE_S):
                if flow.stop.is_set():
                    return
            self.started_ns = flow.clock()
            while not flow.stop.is_set() and self._read_one():
                pass
        except BaseException as err:  # of any kind: it is raised where the frames are taken
            error = err
        finally:
            flow.frames.end(error)
            flow.source.close()

    def _read_one(self) -> bool:
        """Read a frame and leave it for the network; tells whether there may be another."""
        source, clock, limit = self._flow.source, self._flow.clock, self._limit
        if limit is not None and not source.live:
            limit.wait(self._flow.stop)
        start = clock()
        frame = source.read(self._flow.options.timeout_s)
        if frame is None:
            return False
        if limit is None or not source.live or limit.is_due(frame.captured_ns):
            self._flow.frames.put(Captured(frame, (clock() - start) / 1e6))
        else:
            self._flow.frames.pass_over()
        return True
