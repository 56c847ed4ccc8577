"""The network of a pipeline, a second one that is compared with it, and the threads that run them.

Frames go in, results come out, in the order of the frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime.mask.agreement import refuse_other_classes
from rtda_runtime.pipeline.reader import Captured, Flow
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.threads.fair_lock import GivenUpError, waits_until
from rtda_runtime.threads.mailbox import WAKE_S
from rtda_runtime.threads.named import NamedThread

__all__ = ["Inference", "Networks", "Segmented", "Taken"]


class Taken(NamedTuple):
    """A frame that the network works on, and how many were dropped until then."""

    captured: Captured
    dropped: int


class Segmented(NamedTuple):
    """What the networks gave for a frame; ``second`` is that of the one to compare with."""

    taken: Taken
    first: Result
    second: Optional[Result]


class Networks:
    """One network or two, for the same frames.

    Args:
        segmenter: The network.
        compare: The second one, with the same classes.
        owned: Those of the two that are closed with the pipeline.

    Raises:
        ConfigError: If their classes differ, so that their masks mean different things.
    """

    def __init__(
        self, segmenter: AnySegmenter, compare: Optional[AnySegmenter] = None, owned: Sequence[AnySegmenter] = ()
    ) -> None:
        if compare is not None:
            refuse_other_classes(
                compare.spec,
                segmenter.spec,
                said="the two networks have different classes",
                why="their masks mean different things, so they cannot be compared",
                hint="rtda-deploy inspect FILE lists them",
            )
        self.segmenter = segmenter
        self._compare = compare
        self._owned = tuple(owned)

    def warm_up(self, size_wh: Tuple[int, int]) -> None:
        """Segment one black frame on each."""
        width, height = size_wh
        for segmenter in (self.segmenter, self._compare):
            if segmenter is not None:
                segmenter.warm_up((height, width))

    def segment(self, taken: Taken, newer: Optional[Callable[[Taken], Taken]] = None) -> Segmented:
        """Segment a frame.

        Args:
            newer: Gives a newer frame than the one it is given, or that one; asked when this pipeline has its turn on
                the network, because other pipelines may have kept it until then.
        """
        if newer is None:
            first = self._first(taken)
        else:
            with self.segmenter.turn():
                taken = newer(taken)
                first = self._first(taken)
        # The turn on the first network is over: it is free for others while this thread waits for the second one.
        return Segmented(taken, first, None if self._compare is None else self._compare.segment(first.frame))

    def close(self) -> None:
        """Close the segmenters that are owned."""
        for segmenter in self._owned:
            segmenter.close()

    def _first(self, taken: Taken) -> Result:
        frame = taken.captured.frame
        return self.segmenter.segment(frame.image, captured_ns=frame.captured_ns, sequence=frame.sequence)


class Inference(NamedThread):
    """``rtda-infer``: mailbox of frames -> networks -> ``give``, until the frames end, an error, or the flow's end.

    With more than one frame in flight ``rtda-infer-2`` ... do the same beside it. Each takes the next frame, and gives
    its result, or what it failed with, once the results of all frames before are given.

    Args:
        flow: The frames, closed at the end, so that the reader does not wait to put one in.
        networks: Closed at the end.
        give: Gets each result; says whether there shall be more.
        end: Called at the end.

    Attributes:
        newest: The newest result.
        frames_given: Results given so far.
        too_old: Results not given because of their age.
        newest_is_too_old: Whether the last one was.
        newest_ns: When the last result was done, and those before it given.
        ended: Whether no result comes any more.
        helpers: The threads beside this one.
    """

    def __init__(self, flow: Flow, networks: Networks, give: Callable[[Result], bool], end: Callable[[], None]) -> None:
        super().__init__("rtda-infer", self._infer)
        self.newest: Optional[Result] = None
        self.frames_given = 0
        self.too_old = 0
        self.newest_is_too_old = False
        self.newest_ns = 0
        self.ended = False
        in_flight = 1 if flow.newest else networks.segmenter.in_flight
        self.helpers: List[NamedThread] = [
            NamedThread(f"{self.name}-{number}", self._serve) for number in range(2, in_flight + 1)
        ]
        self._taking = threading.Lock()
        self._taken = 0
        self._passed = threading.Condition()
        self._given = 0  # frames whose turn is over
        self._over = False
        self._flow = flow
        self._networks = networks
        self._give = give
        self._end = end

    def _infer(self) -> None:
        flow = self._flow
        try:
            with waits_until(flow.stop):  # others may be at work on the same network
                self._networks.warm_up(flow.source.size_wh)
            flow.ready.set()
            for helper in self.helpers:
                helper.start()
            self._serve()
        except GivenUpError:
            pass
        except BaseException as err:  # of any kind: it is raised where the results are taken
            flow.fail(err)
        finally:
            flow.end()
            for helper in self.helpers:
                while not helper.join_until(time.monotonic() + WAKE_S):
                    pass
            self.ended = True
            self._end()
            self._networks.close()

    def _serve(self) -> None:
        try:
            while self._one():
                pass
        except BaseException as err:
            self._flow.fail(err)
        finally:
            self._flow.end()

    def _one(self) -> bool:
        """Segment the next frame; tells whether there may be another."""
        turn, taken, error = self._take()
        segmented: Optional[Segmented] = None
        if taken is not None:
            try:
                with waits_until(self._flow.stop):
                    segmented = self._networks.segment(taken, self._newest_after if self._flow.newest else None)
            except GivenUpError:
                pass
            except BaseException as err:
                error = err
        with self._in_turn(turn):
            if self._over:
                return False
            self._over = True  # unless all goes well
            if error is not None:
                self._flow.fail(error)
            self._over = segmented is None or not self._finish(segmented)
            return not self._over

    def _take(self) -> Tuple[int, Optional[Taken], Optional[BaseException]]:
        """The turn, and its frame (None: there is none any more) or why there is none."""
        with self._taking:
            turn, self._taken = self._taken, self._taken + 1
            try:
                return turn, None if self._flow.stop.is_set() else self._wait_for_frame(), None
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

    def _wait_for_frame(self) -> Optional[Taken]:
        source, options = self._flow.source, self._flow.options
        period_s = 1.0 / options.rate if options.rate is not None else 0.0
        limit_s = options.timeout_s + period_s + self._flow.patience.grace_s
        while True:
            try:
                taken = self._flow.frames.take(limit_s)
                return None if taken is None else Taken(*taken)
            except TimeoutError as err:
                if source.state != "live":
                    continue  # it knows, and is being connected again
                kind = CameraError if source.live else SourceError
                raise kind(
                    f"{source.name} gave no frame for {options.timeout_s:g} s",
                    hint="check the camera or the disk, then start again",
                ) from err

    def _newest_after(self, taken: Taken) -> Taken:
        """The frame that came since, if one did; the one before counts as dropped then."""
        try:
            newer = self._flow.frames.take(0.0)
        except Exception:  # there is none yet, or never again: that is told when the next one is waited for
            newer = None
        if newer is None:
            return taken
        self._flow.frames.count_dropped()
        return Taken(newer[0], newer[1] + 1)

    def _finish(self, segmented: Segmented) -> bool:
        """Give a result unless it is too old; tells whether there shall be more."""
        self.newest_ns = self._flow.clock()
        result = self._result(segmented)
        max_age_ms = self._flow.options.max_age_ms
        self.newest_is_too_old = max_age_ms is not None and result.timing["age"] > max_age_ms
        if self.newest_is_too_old:
            self.too_old += 1
            return True
        self.newest = result
        self.frames_given += 1
        return self._give(result)

    def _result(self, segmented: Segmented) -> Result:
        """The network's result with all that a pipeline knows beside it."""
        (captured, dropped), first, second = segmented
        timing = {"capture": captured.capture_ms, **first.timing}
        if second is not None:
            timing["compare"] = sum(second.timing.values())
        timing["age"] = (self.newest_ns - first.captured_ns) / 1e6
        return dataclasses.replace(
            first,
            dropped=dropped,
            timing=timing,
            compared=None if second is None else second.mask,
            recorded_ns=captured.frame.recorded_ns,
            state=self._flow.source.state,
            live=self._flow.source.live,
        )
