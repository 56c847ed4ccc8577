"""The thread that owns the networks: frames in, results out."""

from __future__ import annotations

import dataclasses
import threading
from typing import Callable, Optional, Sequence, Tuple

from rtda_deploy.errors import CameraError, ConfigError, SourceError
from rtda_runtime.mailbox import Mailbox
from rtda_runtime.reader import Captured
from rtda_runtime.result import Result
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sources import Source
from rtda_runtime.threads import NamedThread

__all__ = ["Inference", "check_comparable"]

_GRACE_S = 1.0  # the network waits this much longer than the reader, so that the reader's better error comes first


class Inference(NamedThread):
    """``rtda-infer``: mailbox of frames -> networks -> ``give``, until the frames end, an error, or ``stop`` is set.

    Args:
        segmenter: The network.
        source: Where the frames come from: asked for its state and its name only.
        frames: Closed at the end, so that nobody waits to put one in.
        compare: A second network for the same frames.
        ready: Set when the networks are warm.
        stop: Ends it; set at its end.
        give: Gets each result; says whether there shall be more.
        end: Called at the end with the error, or None.
        timeout_s: No frame for this long is an error, unless the source says that it is lost.
        period_s: Of frames that come at a rate of their own; the timeout is longer by it.
        max_age_ms: Older results are counted and not given.
        owned: Segmenters to close at the end.
        clock: Nanoseconds.

    Attributes:
        newest: The newest result.
        frames_given: Results given so far.
        too_old: Results not given because of their age.
        newest_is_too_old: Whether the last one was.
        newest_ns: When the last result was done.
        error: What it ended with, or what another thread made it end with.
        ended: Whether no result comes any more.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        source: Source,
        frames: Mailbox[Captured],
        *,
        compare: Optional[Segmenter],
        ready: threading.Event,
        stop: threading.Event,
        give: Callable[[Result], bool],
        end: Callable[[Optional[BaseException]], None],
        timeout_s: float,
        period_s: float,
        max_age_ms: Optional[float],
        owned: Sequence[Segmenter],
        clock: Callable[[], int],
    ) -> None:
        super().__init__("rtda-infer", self._infer)
        self.newest: Optional[Result] = None
        self.frames_given = 0
        self.too_old = 0
        self.newest_is_too_old = False
        self.newest_ns = 0
        self.error: Optional[BaseException] = None
        self.ended = False
        self._segmenter = segmenter
        self._source = source
        self._frames = frames
        self._compare = compare
        self._ready = ready
        self._stop_inferring = stop
        self._give_to = give
        self._end = end
        self._timeout_s = timeout_s
        self._period_s = period_s
        self._max_age_ms = max_age_ms
        self._owned = tuple(owned)
        self._clock = clock

    def fail(self, error: BaseException) -> None:
        """End because of ``error``; for other threads."""
        self.error = self.error or error
        self._stop_inferring.set()
        self._frames.close()

    def release(self) -> None:
        """Close the segmenters that are owned."""
        for segmenter in self._owned:
            segmenter.close()

    def _infer(self) -> None:
        try:
            width, height = self._source.size_wh
            for segmenter in (self._segmenter, self._compare):
                if segmenter is not None:
                    segmenter.warm_up((height, width))
            self._ready.set()
            while not self._stop_inferring.is_set() and self._one():
                pass
        except BaseException as err:  # whatever it is, it belongs to whoever takes the results
            self.error = self.error or err
        finally:
            self.ended = True
            self._stop_inferring.set()
            self._frames.close()
            self._end(self.error)
            self.release()

    def _one(self) -> bool:
        taken = self._wait_for_frame()
        if taken is None:
            return False
        result = self._segment(*taken)
        self.newest_is_too_old = self._max_age_ms is not None and result.timing["age"] > self._max_age_ms
        if self.newest_is_too_old:
            self.too_old += 1
            return True
        self.newest = result
        self.frames_given += 1
        return self._give_to(result)

    def _wait_for_frame(self) -> Optional[Tuple[Captured, int]]:
        while True:
            try:
                return self._frames.take(self._timeout_s + self._period_s + _GRACE_S)
            except TimeoutError as err:
                if self._source.state != "live":
                    continue  # it knows, and is being connected again
                kind = CameraError if self._source.live else SourceError
                raise kind(
                    f"{self._source.name} gave no frame for {self._timeout_s:g} s",
                    hint="check the camera or the disk, then start again",
                ) from err

    def _segment(self, captured: Captured, dropped: int) -> Result:
        frame, capture_ms = captured
        result = self._segmenter.segment(frame.image, captured_ns=frame.captured_ns, sequence=frame.sequence)
        compared, timing = None, {"capture": capture_ms, **result.timing}
        if self._compare is not None:
            second = self._compare.segment(frame.image)
            compared, timing["compare"] = second.mask, sum(second.timing.values())
        self.newest_ns = self._clock()
        timing["age"] = (self.newest_ns - frame.captured_ns) / 1e6
        return dataclasses.replace(result, dropped=dropped, timing=timing, compared=compared, state=self._source.state)


def check_comparable(segmenter: Segmenter, compare: Optional[Segmenter]) -> None:
    """Check that the masks of two networks mean the same.

    Raises:
        ConfigError: If their classes differ.
    """
    if compare is None or compare.spec.class_names == segmenter.spec.class_names:
        return
    first, second = segmenter.spec.num_classes, compare.spec.num_classes
    raise ConfigError(
        "the two networks have different classes, so their masks cannot be compared",
        why=f"{first} and {second} classes" if first != second else "as many classes, but other names",
        hint="rtda-deploy inspect FILE lists them",
    )
