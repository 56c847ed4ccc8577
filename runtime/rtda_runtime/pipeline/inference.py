"""The threads that own the networks: frames in, results out, in the order of the frames."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from rtda_deploy.errors import CameraError, ConfigError, SourceError
from rtda_runtime.pipeline.reader import Captured
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.sources import Source
from rtda_runtime.threads.fair_lock import GivenUpError, waits_until
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread

__all__ = ["Inference", "check_comparable"]

_GRACE_S = 1.0  # the network waits this much longer than the reader, so that the reader's better error comes first


class Inference(NamedThread):
    """``rtda-infer``: mailbox of frames -> networks -> ``give``, until the frames end, an error, or ``stop`` is set.

    With more than one frame in flight ``rtda-infer-2`` ... do the same beside it. Each takes the next frame, and gives
    its result, or what it failed with, once the results of all frames before are given.

    Args:
        segmenter: The network.
        in_flight: Frames worked on at once.
        newest: Of the frames that came while others had their turn on the same network, take the newest.
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
        newest_ns: When the last result was done, and those before it given.
        error: What it ended with, or what another thread made it end with.
        ended: Whether no result comes any more.
        helpers: The threads beside this one.
    """

    def __init__(
        self,
        segmenter: AnySegmenter,
        source: Source,
        frames: Mailbox[Captured],
        *,
        in_flight: int,
        newest: bool,
        compare: Optional[AnySegmenter],
        ready: threading.Event,
        stop: threading.Event,
        give: Callable[[Result], bool],
        end: Callable[[Optional[BaseException]], None],
        timeout_s: float,
        period_s: float,
        max_age_ms: Optional[float],
        owned: Sequence[AnySegmenter],
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
        self.helpers: List[NamedThread] = [
            NamedThread(f"{self.name}-{number}", self._serve) for number in range(2, in_flight + 1)
        ]
        self._taking = threading.Lock()
        self._taken = 0
        self._passed = threading.Condition()
        self._given = 0  # frames whose turn is over
        self._over = False
        self._newest_only = newest
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
            with waits_until(self._stop_inferring):  # others may be at work on the same network
                for segmenter in (self._segmenter, self._compare):
                    if segmenter is not None:
                        segmenter.warm_up((height, width))
            self._ready.set()
            for helper in self.helpers:
                helper.start()
            self._serve()
        except GivenUpError:
            pass
        except BaseException as err:  # whatever it is, it belongs to whoever takes the results
            self.error = self.error or err
        finally:
            self._no_more_frames()
            for helper in self.helpers:
                while not helper.join_until(time.monotonic() + WAKE_S):
                    pass
            self.ended = True
            self._end(self.error)
            self.release()

    def _serve(self) -> None:
        try:
            while self._one():
                pass
        except BaseException as err:
            self.error = self.error or err
        finally:
            self._no_more_frames()

    def _no_more_frames(self) -> None:
        self._stop_inferring.set()
        self._frames.close()

    def _one(self) -> bool:
        """Segment the next frame; tells whether there may be another."""
        turn, taken, error = self._take()
        result: Optional[Result] = None
        if taken is not None:
            try:
                with waits_until(self._stop_inferring):
                    result = self._segment_in_turn(*taken)
            except GivenUpError:
                pass
            except BaseException as err:
                error = err
        with self._in_turn(turn):
            if self._over:
                return False
            self._over = True  # unless all goes well
            self.error = self.error or error
            self._over = result is None or not self._finish(result)
            return not self._over

    def _take(self) -> Tuple[int, Optional[Tuple[Captured, int]], Optional[BaseException]]:
        """The turn, and its frame (None: there is none any more) or why there is none."""
        with self._taking:
            turn, self._taken = self._taken, self._taken + 1
            try:
                return turn, None if self._stop_inferring.is_set() else self._wait_for_frame(), None
            except BaseException as err:
                return turn, None, err

    @contextlib.contextmanager
    def _in_turn(self, turn: int) -> Iterator[None]:
        """One thread at a time, in the order in which they took their frames."""
        with self._passed:
            while self._given != turn:
                self._passed.wait(WAKE_S)
        try:
            yield
        finally:
            with self._passed:
                self._given += 1
                self._passed.notify_all()

    def _finish(self, segmented: Result) -> bool:
        """Give a result unless it is too old; tells whether there shall be more."""
        self.newest_ns = self._clock()
        timing = {**segmented.timing, "age": (self.newest_ns - segmented.captured_ns) / 1e6}
        self.newest_is_too_old = self._max_age_ms is not None and timing["age"] > self._max_age_ms
        if self.newest_is_too_old:
            self.too_old += 1
            return True
        result = dataclasses.replace(segmented, timing=timing, state=self._source.state, live=self._source.live)
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

    def _segment_in_turn(self, captured: Captured, dropped: int) -> Result:
        if not self._newest_only:
            result = self._segment(captured, dropped)
        else:
            with self._segmenter.turn():
                captured, dropped = self._newest_after(captured, dropped)
                result = self._segment(captured, dropped)
        return result if self._compare is None else self._compared(result, self._compare)  # waits while keeping nothing

    def _newest_after(self, captured: Captured, dropped: int) -> Tuple[Captured, int]:
        """The frame that came since, if one did; the one before counts as dropped then."""
        try:
            newer = self._frames.take(0.0)
        except Exception:  # there is none yet, or never again: that is told when the next one is waited for
            newer = None
        if newer is None:
            return captured, dropped
        self._frames.count_dropped()
        return newer[0], newer[1] + 1

    def _segment(self, captured: Captured, dropped: int) -> Result:
        frame, capture_ms = captured
        result = self._segmenter.segment(frame.image, captured_ns=frame.captured_ns, sequence=frame.sequence)
        timing = {"capture": capture_ms, **result.timing}
        return dataclasses.replace(result, dropped=dropped, timing=timing, recorded_ns=frame.recorded_ns)

    @staticmethod
    def _compared(result: Result, compare: AnySegmenter) -> Result:
        second = compare.segment(result.frame)
        timing = {**result.timing, "compare": sum(second.timing.values())}
        return dataclasses.replace(result, timing=timing, compared=second.mask)


def check_comparable(segmenter: AnySegmenter, compare: Optional[AnySegmenter]) -> None:
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
