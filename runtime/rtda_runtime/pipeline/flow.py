"""Frames on their way from the thread that reads them to those that run the network."""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple, Optional

from rtda_runtime.pipeline.options import Patience, PipelineOptions
from rtda_runtime.sources import Frame, Source
from rtda_runtime.threads.mailbox import Mailbox

__all__ = ["AHEAD", "Captured", "Flow"]

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
