"""A sink on a thread of its own, so that a slow or failing one does not affect the others."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any, Callable, Dict, Optional, Tuple

from rtda_deploy.errors import RtdaError
from rtda_runtime.result import Result
from rtda_runtime.sinks.base import Sink
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread, give_way
from rtda_runtime.timing import StageTimes

__all__ = ["SinkThread"]

# Results that a sink which keeps everything may be behind where the pipeline does not wait for it. They even out slow
# frames, such as the first, for which an encoder is made. As many as fit into the memory, within limits.
_WAITING_BYTES = 64 << 20
_LEAST_WAITING, _MOST_WAITING = 4, 30

_log = logging.getLogger(__name__)


class SinkThread(NamedThread):
    """``rtda-<name>``: mailbox -> sink, until the mailbox ends; then the sink is closed.

    Args:
        name: Of the sink, unique in its pipeline.
        wait: Who gives a result waits for room. False: the oldest one waiting is dropped, and counted.
        size_wh: Of the frames.
        times: Gets the sink's stages, too.
        on_error: Also gets what the sink failed with, from this thread; it is logged in any case.

    Attributes:
        finishing: Everything is written, and the sink is being closed.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        *,
        wait: bool,
        size_wh: Tuple[int, int],
        times: StageTimes,
        on_error: Optional[Callable[[BaseException], None]] = None,
    ) -> None:
        super().__init__(f"rtda-{name}", self._serve)
        self.sink = sink
        self.sink_name = name
        self.error: Optional[BaseException] = None
        self.written = 0
        self.finishing = False
        capacity = 1 if not sink.keeps else _LEAST_WAITING if wait else _waiting(size_wh)
        self._mailbox: Mailbox[Result] = Mailbox(capacity, replace=not wait)
        self._wait = wait
        self._deadline_s = math.inf
        self._times = times
        self._own_times = StageTimes()
        self._on_error = on_error

    def give(self, result: Result) -> None:
        """Leave a result for the sink. Does nothing once the sink failed or ended."""
        self._mailbox.put(result)

    def end(self) -> None:
        """No more results come; what was left is still written, then the sink is closed."""
        self._mailbox.end()

    def hurry(self, deadline_s: float) -> None:
        """Drop, and count, what is not written when ``time.monotonic()`` reaches that; the pipeline is being closed.

        Does nothing for a sink that is waited for; few results wait there.
        """
        if not self._wait:
            self._deadline_s = deadline_s

    def await_file(self, stuck_s: float) -> bool:
        """Wait while it writes or finishes its file; False: it is stuck, one result takes longer than ``stuck_s``."""
        written, since = self.written, time.monotonic()
        while not self.join_until(time.monotonic() + WAKE_S):
            if self.written != written or self.finishing:
                written, since = self.written, time.monotonic()
            elif time.monotonic() - since > stuck_s:
                return False
        return True

    def abandon(self) -> None:
        """Take nothing any more: a thread that waits to give it something goes on."""
        self._mailbox.close()

    @property
    def stats(self) -> Dict[str, Any]:
        """``written``, ``dropped`` (by the sink being slow), ``error`` (a sentence or None), ``stages`` in ms.

        Beside them the sink's own figures.
        """
        return {
            **self.sink.details(),
            "written": self.written,
            "dropped": self._mailbox.dropped,
            "error": None if self.error is None else str(self.error) or type(self.error).__name__,
            "stages": self._own_times.summary(),
        }

    def close_unused(self) -> None:
        """Close the sink of a thread that was never started."""
        self._guarded(self.sink.close)

    def _serve(self) -> None:
        if self.sink.nice:
            give_way(self.sink.nice)
        try:
            self._guarded(self._write_all)
        finally:
            self._mailbox.close()
            self.finishing = True
            self._guarded(self.sink.close)

    def _write_all(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                taken = self._mailbox.take(WAKE_S)
                if taken is None:
                    return
                if time.monotonic() > self._deadline_s:
                    self._mailbox.count_dropped()
                    continue
                spent_ms = self.sink.write(taken[0])
                del taken  # its memory is not held while waiting for the next
                self.written += 1
                self._times.add(spent_ms)
                self._own_times.add(spent_ms)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as err:  # sys.exit(), too: what waits for this sink would wait for ever
            if self.error is not None:  # closing what failed before; the first reason is the one to tell
                _log.debug("sink %s, already stopped: %s", self.sink_name, err)
                return
            self.error = err
            unforeseen = not isinstance(err, RtdaError)  # then its sentence is not enough: people need the place
            _log.error("sink %s stopped: %s", self.sink_name, err, exc_info=unforeseen)
            if self._on_error is not None:
                self._on_error(err)


def _waiting(size_wh: Tuple[int, int]) -> int:
    result_bytes = size_wh[0] * size_wh[1] * 4  # a frame and its mask
    return max(_LEAST_WAITING, min(_MOST_WAITING, _WAITING_BYTES // max(1, result_bytes)))
