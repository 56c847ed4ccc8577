"""Between a camera topic and the output topics: one slot in which the newest image wins, and a thread of its own.

The subscriber's callback only leaves the message and returns, so that the middleware's receiving thread always drains
its socket: images cannot pile up there while the network runs, which is how nodes that infer in a callback get late.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from typing import Callable, Collection, Dict, List, Optional, Set, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_runtime.pipeline.shadow import Shadow
from rtda_runtime.pipeline.sink_thread import SinkThread
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.ros.diagnostics import Diagnostic, diagnostic
from rtda_runtime.ros.images import image_from_array
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.shift.alarm import ShiftState
from rtda_runtime.shift.support import duration_s
from rtda_runtime.shift.watch import ShiftWatch
from rtda_runtime.sinks.overlay import Overlay, colorize
from rtda_runtime.sources.image_messages import (
    CompressedMessage,
    Header,
    ImageMessage,
    frame_from_compressed,
    frame_from_image,
)
from rtda_runtime.threads.buffers import BufferPool
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread
from rtda_runtime.timing import StageTimes

__all__ = ["OUTPUTS", "Outputs", "SegmentationWorker", "output_names"]

OUTPUTS = ("class_mask", "color_mask", "overlay", "confidence")

_MOST_REASONS = 50  # told apart; a broken driver may give another size with every image
_STOP_S = 2.0  # close() waits so long for an inference in progress

_log = logging.getLogger(__name__)

Message = Union[ImageMessage, CompressedMessage]


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
    """What is published of one image; all have its header. None: not wanted, or not told by the segmenter."""

    header: Header
    class_mask: Optional[ImageMessage]
    color_mask: Optional[ImageMessage]
    overlay: Optional[ImageMessage]
    confidence: Optional[ImageMessage]


def output_names(*, confidence: bool) -> Tuple[str, ...]:
    """:data:`OUTPUTS`, without the confidence where the network was not asked for it."""
    return OUTPUTS if confidence else OUTPUTS[:-1]


class SegmentationWorker:
    """Segments the newest image and gives its outputs to ``publish``, in the thread ``rtda-segment``.

    An image that cannot be used, such as one of 16 bits, is counted and told once per reason; the worker goes on.

    Args:
        segmenter: Closed with the worker.
        publish: Called with each result, in the worker's thread.
        wanted: Names of :data:`OUTPUTS` that have a subscriber; looked at for each image. Where it is none of
            them, the network does not run.
        now_ns: The clock of the headers: ROS time, which may be simulated.
        max_age_s: Images older than this when their turn comes are left out and counted; 0: none are.
        alpha: Weight of the mask's colours in the overlay.
        shift: Time between false alarms of the shift alarm, such as ``2h``; empty: no such alarm. It sees the frames
            that are segmented.
        shadow: A candidate of the same classes, as :func:`open_candidate` opens it: it looks at segmented images for
            which there is time, none while images are replaced. Closed with the worker. None: there is none.
        warn: Gets one line for people.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        publish: Callable[[Outputs], None],
        *,
        wanted: Callable[[], Collection[str]] = lambda: OUTPUTS,
        now_ns: Callable[[], int] = time.time_ns,
        max_age_s: float = 0.0,
        alpha: float = 0.5,
        shift: str = "",
        shadow: Optional[AnySegmenter] = None,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        if not max_age_s >= 0:
            raise ConfigError(f"max_age must not be negative, got {max_age_s:g}", hint="seconds; 0: no limit")
        self.segmenter = segmenter
        self._publish = publish
        self._wanted = wanted
        self._now_ns = now_ns
        self._max_age_ns = max_age_s * 1e9
        self._overlay = Overlay(segmenter.spec, alpha)
        self._watch = ShiftWatch(segmenter, duration_s(shift, "shift"), self._tell_shift) if shift else None
        self._shadow = None if shadow is None else Shadow(segmenter, shadow, owned=True)
        size_wh = segmenter.spec.size_hw[::-1]
        self._beside: List[SinkThread] = [
            SinkThread(sink, sink.name, wait=False, size_wh=size_wh, times=StageTimes())
            for sink in (self._watch, self._shadow)
            if sink is not None
        ]
        for thread in self._beside:
            thread.start()
        self._warn = warn
        self._told: Set[str] = set()
        self._mailbox: Mailbox[Message] = Mailbox(1, replace=True)
        self._pictures = BufferPool()
        self._lock = threading.Lock()
        self._counts = {"published": 0, "stale": 0, "unwanted": 0, "refused": 0}
        self._age_ms = 0.0
        self._thread = NamedThread("rtda-segment", self._serve)
        self._thread.start()

    def give(self, message: Message) -> None:
        """Leave an image, from any thread; never waits. One that is still there gives way to it."""
        self._mailbox.put(message)

    @property
    def stats(self) -> Dict[str, float]:
        """Images ``received``, and of those ``published``, ``replaced``, ``stale``, ``unwanted``, ``refused``.

        Up to two more are waiting or in progress. ``age_ms`` is that of the newest mask, from its image's stamp.
        """
        with self._lock:
            counts = dict(self._counts)
        return {"received": self._mailbox.arrived, "replaced": self._mailbox.dropped, **counts, "age_ms": self._age_ms}

    @property
    def diagnostic(self) -> Diagnostic:
        """Its health, for ``/diagnostics``."""
        shift = None if self._watch is None else self._watch.state
        shadow = None if self._shadow is None else self._shadow.told(self._beside[-1].stats)
        return diagnostic("rtda_ros", self.segmenter.description, self.stats, shift, shadow)

    def close(self) -> None:
        """End the threads, close the segmenter and the shadow's. Calling it again does nothing."""
        self._mailbox.close()
        self._thread.join_until(time.monotonic() + _STOP_S)
        deadline_s = time.monotonic() + _STOP_S
        for thread in self._beside:
            thread.end()
        for thread in self._beside:
            thread.join_until(deadline_s)
        self.segmenter.close()

    def _serve(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                taken = self._mailbox.take(WAKE_S)
                if taken is None:
                    return
                self._guarded(taken[0])

    def _guarded(self, message: Message) -> None:
        try:
            kind = self._segment(message)
        except RtdaError as err:
            self._tell(err.message, " ".join(filter(None, (err.why, err.hint))))
            kind = "refused"
        except Exception as err:  # of publishing, while the middleware shuts down
            self._tell(f"{type(err).__name__}: {err}", "")
            kind = "refused"
        with self._lock:
            self._counts[kind] += 1

    def _segment(self, message: Message) -> str:
        if self._max_age_ns and self._age_ns(message.header) > self._max_age_ns:
            return "stale"
        wanted = self._wanted()
        if not wanted:
            return "unwanted"
        frame = frame_from_image(message) if isinstance(message, ImageMessage) else frame_from_compressed(message)
        stamp_ns = message.header.stamp_ns or None  # the alarm's blocks are seconds of the camera's own time
        segmented = self.segmenter.segment(frame, captured_ns=stamp_ns)
        result = dataclasses.replace(segmented, dropped=self._mailbox.dropped)
        self._publish(self._outputs(result, message.header, wanted))
        for thread in self._beside:
            if thread.sink.wants(result):
                thread.give(result)
        self._age_ms = self._age_ns(message.header) / 1e6
        return "published"

    def _age_ns(self, header: Header) -> int:
        """A header without a stamp has no age."""
        return self._now_ns() - header.stamp_ns if header.stamp_ns else 0

    def _outputs(self, result: Result, header: Header, wanted: Collection[str]) -> Outputs:
        def made(name: str, draw: Callable[[], Optional[np.ndarray]]) -> Optional[ImageMessage]:
            picture = draw() if name in wanted else None
            return None if picture is None else image_from_array(picture, header)

        return Outputs(
            header=header,
            class_mask=made("class_mask", lambda: result.mask),
            color_mask=made("color_mask", lambda: self._colours(result)),
            overlay=made("overlay", lambda: self._overlay.draw_result(result)),
            confidence=made("confidence", lambda: result.confidence),
        )

    def _colours(self, result: Result) -> np.ndarray:
        return colorize(result.mask, result.spec.palette, self._pictures.take(result.frame.shape))

    def _tell_shift(self, state: ShiftState) -> None:
        self._warn(f"shift: {state.sentence()}")

    def _tell(self, reason: str, more: str) -> None:
        """Say each reason once; a camera of the wrong kind would fill the log."""
        if reason not in self._told and len(self._told) < _MOST_REASONS:
            self._told.add(reason)
            self._warn(f"{reason}. {more}".strip())
