"""Where a benchmark's samples come from: pictures one after the other or several at once, or a whole pipeline.

A source gives frames that are due by a schedule which nothing delays: an open loop, as a camera is one. Where the next
frame comes only after the one before is finished, a stall delays the frames behind it and their waiting is never seen
(coordinated omission). Here a frame that is due while the network is busy waits, and one that a newer frame
overtakes is counted as missed.
"""

from __future__ import annotations

import abc
import itertools
import threading
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import CameraError, SourceError
from rtda_deploy.optional import require
from rtda_runtime.pipeline.pipeline import Pipeline
from rtda_runtime.pool import AnySegmenter, SegmenterPool
from rtda_runtime.sources import Frame, Source

__all__ = [
    "Counts",
    "PictureSampler",
    "PipelineSampler",
    "PoolSampler",
    "Sampler",
    "Schedule",
    "ScheduledSource",
    "smooth_pictures",
]


class Counts(NamedTuple):
    """Frames that gave no sample because a newer one was there, and those that began late or gave none.

    ``missed`` is None where no frame is due at any time, ``late`` where there is no schedule.
    """

    missed: Optional[int] = None
    late: Optional[int] = None


class Sampler(abc.ABC):
    """Gives the milliseconds per stage of one frame after the other.

    Attributes:
        includes: What "total" covers.
        frame_hw: Of the first frame.
    """

    frame_hw: Tuple[int, int] = (0, 0)

    def __init__(self, includes: str, schedule: Optional[Schedule] = None) -> None:
        self.includes = includes
        self._schedule = schedule

    @abc.abstractmethod
    def sample(self) -> Optional[Dict[str, float]]:
        """Milliseconds per stage of the next frame, "total" among them; None at the end."""

    def start_counting(self) -> None:
        """The warm-up is over: :meth:`counts` is since now."""
        if self._schedule is not None:
            self._schedule.begin()

    def counts(self) -> Counts:
        """What was missed, and what began late."""
        return Counts() if self._schedule is None else Counts(self._schedule.missed, self._schedule.late)

    def close(self) -> None:  # noqa: B027  (most have none)
        """End threads of its own."""


class PictureSampler(Sampler):
    """Pictures in memory, one after the other in this thread, or as they are due."""

    def __init__(
        self,
        segmenter: AnySegmenter,
        pictures: Sequence[np.ndarray],
        schedule: Optional[Schedule],
        clock: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        waits = "" if schedule is None else ", and what a frame waits after it was due"
        super().__init__(f"preprocess, infer, postprocess{waits}", schedule)
        self.frame_hw = (pictures[0].shape[0], pictures[0].shape[1])
        self._segmenter = segmenter
        self._pictures = itertools.cycle([(picture, np.empty(picture.shape[:2], np.uint8)) for picture in pictures])
        self._clock = clock
        self._sleep = sleep

    def sample(self) -> Dict[str, float]:
        picture, mask = next(self._pictures)
        due = None if self._schedule is None else self._schedule.wait(self._sleep)
        start = self._clock()
        timing = self._segmenter.segment(picture, out=mask).timing
        done = self._clock()
        if due is None:
            return {**timing, "total": (done - start) / 1e6}
        return {"wait": (start - due) / 1e6, **timing, "total": (done - due) / 1e6}


class PoolSampler(Sampler):
    """Pictures in memory, as many at once as a pool takes."""

    def __init__(self, pool: SegmenterPool, pictures: Sequence[np.ndarray]) -> None:
        super().__init__(f"preprocess, infer, postprocess of a frame, while {pool.in_flight} are at work at once")
        self.frame_hw = (pictures[0].shape[0], pictures[0].shape[1])
        self._results = pool.segment_all(itertools.cycle(pictures))

    def sample(self) -> Dict[str, float]:
        timing = next(self._results).timing
        return {**timing, "total": sum(timing.values())}

    def close(self) -> None:
        self._results.close()


class PipelineSampler(Sampler):
    """Frames of a source, through a whole pipeline with its threads and its policy."""

    def __init__(self, segmenter: AnySegmenter, source: Source, schedule: Optional[Schedule]) -> None:
        self._live = schedule is not None or source.live
        includes = "capture, preprocess, infer, postprocess of a frame, not what it waits between them"
        if schedule is not None:
            includes = "from when a frame was due to its mask: reading, waiting, preprocess, infer, postprocess"
        elif source.live:
            includes = "from a frame's capture to its mask: waiting, preprocess, infer, postprocess"
        super().__init__(includes, schedule)
        # Each result of a camera, too: one that was segmented and not looked at would count nowhere.
        frames = source if schedule is None else ScheduledSource(source, schedule)
        self._pipeline = Pipeline.open(segmenter, frames, each_result=True)
        self._results = iter(self._pipeline)
        self._dropped_before = 0

    def start_counting(self) -> None:
        super().start_counting()
        self._dropped_before = int(self._pipeline.stats["dropped"])

    def counts(self) -> Counts:
        dropped = int(self._pipeline.stats["dropped"]) - self._dropped_before
        missed, late = super().counts()
        if missed is None or late is None:
            return Counts(dropped if self._live else None)
        return Counts(dropped + missed, dropped + late)

    def sample(self) -> Optional[Dict[str, float]]:
        result = next(self._results, None)
        if result is None:
            return None
        if self.frame_hw == (0, 0):
            self.frame_hw = (result.frame.shape[0], result.frame.shape[1])
        age, capture = result.timing["age"], result.timing["capture"]
        stages = {stage: result.timing[stage] for stage in ("preprocess", "infer", "postprocess")}
        work = sum(stages.values())
        if not self._live:
            return {"capture": capture, **stages, "total": capture + work}
        return {"capture": capture, "wait": max(0.0, age - work), **stages, "total": age}

    def close(self) -> None:
        self._pipeline.close()


def smooth_pictures(size_wh: Tuple[int, int], count: int = 4) -> List[np.ndarray]:
    """Different smooth coloured pictures, uint8 (H, W, 3), the same ones each time.

    A constant picture would flatter every cache and branch on the way; noise would give a mask that is all border or
    has none, and the borders are what the last stage takes its time for.
    """
    cv2 = require("cv2", extra="runtime", purpose="to make pictures")
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (9, 16, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(cv2.resize(picture, size_wh, interpolation=cv2.INTER_CUBIC)) for picture in coarse]


_LATE = 0.05  # share of a period: a frame that begins later than that after it was due is late


class Schedule:
    """When frames are due: at a fixed rate from the first one on, whatever else happens. Any thread may call it.

    Attributes:
        missed: Frames since :meth:`begin` that were not taken, because a newer one was due.
        late: Those, and the frames that began notably later than they were due.
    """

    def __init__(self, rate_hz: float, clock: Callable[[], int]) -> None:
        self._period_ns = 1e9 / rate_hz
        self._clock = clock
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Start again, with the first frame due one period from now."""
        with self._lock:
            self.missed = self.late = 0
            self._first_ns = self._clock() + round(self._period_ns)
            self._taken = -1

    def wait(self, sleep: Callable[[float], object]) -> int:
        """Wait until a frame is due: the newest that is, else the next; those before it are missed.

        Args:
            sleep: Waits for so many seconds.

        Returns:
            When the frame was due, by the clock.
        """
        with self._lock:
            newest = max(self._taken + 1, int((self._clock() - self._first_ns) // self._period_ns))
            missed = newest - self._taken - 1
            self.missed += missed
            self.late += missed
            self._taken = newest
            due_ns = self._first_ns + round(newest * self._period_ns)
        early_ns = due_ns - self._clock()
        if early_ns > 0:
            sleep(early_ns / 1e9)
        with self._lock:
            self.late += self._clock() - due_ns > _LATE * self._period_ns
        return due_ns


class ScheduledSource(Source):
    """A recording that delivers as a camera: each frame when it is due, stamped with that moment.

    ``read`` waits first and reads then, so that the time to decode is part of the frame's age; a frame that could not
    be read before the next one was due is missed.
    """

    def __init__(self, source: Source, schedule: Schedule, closed: Optional[threading.Event] = None) -> None:
        self.name = source.name
        self.live = True
        self.fps = source.fps
        self.size_wh = source.size_wh
        self._source = source
        self._schedule = schedule
        self._closed = closed or threading.Event()  # is waited on, so that closing ends a wait

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        def sleep(seconds: float) -> None:
            if seconds > timeout_s:
                raise CameraError(f"{self.name} gave no frame for {timeout_s:g} s", hint="a higher --rate")
            if self._closed.wait(seconds):
                raise SourceError(f"{self.name} is closed", hint="open it again")

        due_ns = self._schedule.wait(sleep)
        frame = self._source.read(timeout_s)
        return None if frame is None else Frame(image=frame.image, captured_ns=due_ns, sequence=frame.sequence)

    def interrupt(self) -> None:
        """End a wait for the next frame."""
        self._closed.set()

    def close(self) -> None:
        self._closed.set()
        self._source.close()
