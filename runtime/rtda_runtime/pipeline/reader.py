"""The thread that owns a source, reads it and closes it; and its frames on their way to those that run the network."""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple, Optional

from rtda_runtime.pipeline.options import Patience, PipelineOptions
from rtda_runtime.sources import Frame, Source
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread

__all__ = ["AHEAD", "Captured", "Flow", "RateLimit", "Reader"]

AHEAD = 2  # frames the reader, and results the network, may be ahead under "every"


class Captured(NamedTuple):
    """A frame, and the milliseconds that reading it took."""

    frame: Frame
    capture_ms: float


class Flow:
    """What the thread that reads and those that run the network share: the frames between them, and how they end.

    Args:
        source: Where the frames come from.
        options: Of the pipeline.
        patience: With threads that do not answer.
        clock: Nanoseconds.

    Attributes:
        policy: ``newest`` or ``every``.
        frames: Read, and not yet taken by the network.
        ready: Set when the networks are warm. Nothing is read before: those frames would only be dropped.
        stop: Set when no more frames are wanted.
        error: What ended the pipeline, the first error of any thread; None: it goes on, or ended in order.

    Raises:
        ConfigError: If the options do not fit the source.
    """

    def __init__(self, source: Source, options: PipelineOptions, patience: Patience, clock: Callable[[], int]) -> None:
        self.source = source
        self.options = options
        self.patience = patience
        self.clock = clock
        self.policy = options.policy_for(source)
        self.frames: Mailbox[Captured] = Mailbox(1 if self.newest else AHEAD, replace=self.newest)
        self.ready = threading.Event()
        self.stop = threading.Event()
        self.error: Optional[BaseException] = None

    @property
    def newest(self) -> bool:
        """Whether a newer frame takes the place of one that waits; False: the reader waits until there is room."""
        return self.policy == "newest"

    def end(self) -> None:
        """No more frames are wanted."""
        self.stop.set()
        self.frames.close()

    def fail(self, error: BaseException) -> None:
        """End because of ``error``, unless another one ended it before."""
        self.error = self.error or error
        self.end()


_EARLY = 0.25  # of a period: a camera of the very same rate is never exactly on time


class RateLimit:
    """Which frames to take of a source that gives them faster.

    A recording is read when the time has come. A camera cannot be told to wait, because frames would grow old in its
    driver; so of a camera the frames that come too early are passed over, and each one taken is fresh. So are those of
    a recording that is played at its own times.

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
        comes = source.live or source.paced  # whether it is read or not
        if limit is not None and not comes:
            limit.wait(self._flow.stop)
        start = clock()
        frame = source.read(self._flow.options.timeout_s)
        if frame is None:
            return False
        if limit is None or not comes or limit.is_due(frame.captured_ns):
            self._flow.frames.put(Captured(frame, (clock() - start) / 1e6))
        else:
            self._flow.frames.pass_over()
        return True
