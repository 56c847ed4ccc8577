"""What a benchmark takes its samples from: one frame after the other with the milliseconds of each of its stages.

In turn in the caller's thread, by a schedule, several at once, or through a whole pipeline with its threads.
"""

from __future__ import annotations

import abc
from typing import Callable, Dict, Iterator, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_runtime.pipeline.pipeline import Pipeline
from rtda_runtime.pool import AnySegmenter, SegmenterPool
from rtda_runtime.sources import Source
from rtda_runtime.threads.offered import OfferedSource, Schedule

__all__ = ["AtOnce", "Frames", "InTurn", "Taker", "Through"]

Frames = Union[Source, Sequence[np.ndarray]]


class Taker(abc.ABC):
    """Gives the stages of one frame after the other; counts what was not looked at.

    Attributes:
        includes: What "total" covers.
        frame_hw: Of the first frame.
    """

    includes: str
    frame_hw: Tuple[int, int] = (0, 0)

    @abc.abstractmethod
    def next(self) -> Optional[Dict[str, float]]:
        """Milliseconds per stage of the next frame, "total" among them; None at the end."""

    @abc.abstractmethod
    def begin(self) -> None:
        """From now on it counts: the warm-up is over."""

    @abc.abstractmethod
    def counts(self) -> Dict[str, Optional[int]]:
        """Since :meth:`begin`: ``missed`` (a newer frame replaced them; None: nothing is due at any time), and ``late``
        (those that were missed or began late; None: there is no schedule)."""

    def close(self) -> None:  # noqa: B027  (most have nothing to end)
        """End threads of its own."""


class InTurn(Taker):
    """Frames one after the other in this thread, or by a schedule."""

    def __init__(
        self,
        segmenter: AnySegmenter,
        frames: Frames,
        rate_hz: Optional[float],
        clock: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self.includes = "preprocess, infer, postprocess"
        self._source = frames if isinstance(frames, Source) else None
        self._counts_capture = self._source is not None and not self._source.live
        if self._counts_capture:
            self.includes = f"capture, {self.includes}"
        if rate_hz:
            self.includes += ", and what a frame waits after it was due"
        self._segmenter = segmenter
        self._frames = _endless(frames)
        self._mask: Optional[np.ndarray] = None
        self._schedule = Schedule(rate_hz, clock) if rate_hz else None
        self._begun_late = 0
        self._clock = clock
        self._sleep = sleep

    def begin(self) -> None:
        self._begun_late = 0
        if self._schedule is not None:
            self._schedule.begin()

    def counts(self) -> Dict[str, Optional[int]]:
        if self._schedule is None:
            return {"missed": None, "late": None}
        missed = self._schedule.missed
        return {"missed": missed, "late": missed + self._begun_late}

    def next(self) -> Optional[Dict[str, float]]:
        due = self._wait_for_turn()
        start = self._clock()
        frame = next(self._frames, None)
        if frame is None:
            return None
        read = self._clock()
        self.frame_hw = self.frame_hw if self.frame_hw != (0, 0) else (frame.shape[0], frame.shape[1])
        if self._mask is None or self._mask.shape != frame.shape[:2]:
            self._mask = np.empty(frame.shape[:2], np.uint8)
        result = self._segmenter.segment(frame, out=self._mask)
        done = self._clock()
        began = start if self._counts_capture else read
        stages: Dict[str, float] = {}
        if due is not None:
            stages["wait"] = (began - due) / 1e6
            began = due
        if self._source is not None:
            stages["capture"] = (read - start) / 1e6
        return {**stages, **result.timing, "total": (done - began) / 1e6}

    def _wait_for_turn(self) -> Optional[int]:
        schedule = self._schedule
        if schedule is None:
            return None
        due = schedule.next_ns()
        now = self._clock()
        if now < due:
            self._sleep((due - now) / 1e9)
        self._begun_late += schedule.is_late(due, self._clock())
        return due


class AtOnce(Taker):
    """Pictures, as many at once as the pool takes."""

    def __init__(self, pool: SegmenterPool, frames: Sequence[np.ndarray]) -> None:
        self.includes = f"preprocess, infer, postprocess of a frame, while {pool.in_flight} are at work at once"
        self.frame_hw = (frames[0].shape[0], frames[0].shape[1])
        self._results = pool.segment_all(_endless(frames))

    def begin(self) -> None:
        """Nothing counts but the frames."""

    def counts(self) -> Dict[str, Optional[int]]:
        return {"missed": None, "late": None}

    def next(self) -> Optional[Dict[str, float]]:
        timing = next(self._results).timing
        return {**timing, "total": sum(timing.values())}

    def close(self) -> None:
        self._results.close()


class Through(Taker):
    """Results of a pipeline, as they come."""

    def __init__(
        self, segmenter: AnySegmenter, source: Source, rate_hz: Optional[float], clock: Callable[[], int]
    ) -> None:
        self._offered = OfferedSource(source, Schedule(rate_hz, clock), clock) if rate_hz else None
        self._live = self._offered is not None or source.live
        self.includes = "capture, preprocess, infer, postprocess of a frame, not what it waits between them"
        if self._offered is not None:
            self.includes = "from when a frame was due to its mask: reading, waiting, preprocess, infer, postprocess"
        elif source.live:
            self.includes = "from a frame's capture to its mask: waiting, preprocess, infer, postprocess"
        # Each result of a camera, too: one that was segmented and not looked at would count nowhere.
        self._pipeline = Pipeline.open(segmenter, self._offered or source, each_result=True)
        self._results = iter(self._pipeline)
        self._dropped_before = 0

    def begin(self) -> None:
        self._dropped_before = int(self._pipeline.stats["dropped"])
        if self._offered is not None:
            self._offered.begin()

    def counts(self) -> Dict[str, Optional[int]]:
        if not self._live:
            return {"missed": None, "late": None}
        missed = int(self._pipeline.stats["dropped"]) - self._dropped_before
        if self._offered is None:
            return {"missed": missed, "late": None}
        missed += self._offered.missed
        return {"missed": missed, "late": missed + self._offered.late}

    def next(self) -> Optional[Dict[str, float]]:
        result = next(self._results, None)
        if result is None:
            return None
        if self.frame_hw == (0, 0):
            self.frame_hw = (result.frame.shape[0], result.frame.shape[1])
        age = result.timing["age"]
        capture = result.timing["capture"]
        stages = {stage: result.timing[stage] for stage in ("preprocess", "infer", "postprocess")}
        work = sum(stages.values())
        if not self._live:
            return {"capture": capture, **stages, "total": capture + work}
        return {"capture": capture, "wait": max(0.0, age - work), **stages, "total": age}

    def close(self) -> None:
        self._pipeline.close()


def _endless(frames: Frames) -> Iterator[np.ndarray]:
    if isinstance(frames, Source):
        while True:
            frame = frames.read()
            if frame is None:
                return
            yield frame.image
    while True:
        yield from frames
