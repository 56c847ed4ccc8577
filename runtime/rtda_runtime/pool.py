"""Several frames in flight at once, each on an engine of its own: more frames per second, at a higher latency each.

On a CPU the engines share the cores: with fewer threads an inference takes longer but wastes less time on
synchronisation. On a GPU one frame is prepared and copied while the network runs on another.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ContextManager,
    Deque,
    Generator,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
)

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.machine.cores import usable_cores
from rtda_runtime.mask.preprocess import check_frame
from rtda_runtime.result import Result
from rtda_runtime.segmenter import OfOneProcess, Segmenter
from rtda_runtime.threads.buffers import BufferPool
from rtda_runtime.threads.fair_lock import FairLock, waits_until
from rtda_runtime.threads.mailbox import WAKE_S

if TYPE_CHECKING:
    from rtda_runtime.mask.regions import RegionOfInterest

__all__ = ["AnySegmenter", "SegmenterPool", "check_in_flight", "open_segmenter"]


class SegmenterPool(OfOneProcess):
    """Segmenters of one model that stand in for one. Any thread may call it; ``in_flight`` calls are served at once.

    A call while all are at work waits; the one that waits longest is served next.

    ::

        with SegmenterPool.open("model.onnx", in_flight=2) as pool:
            for result in pool.segment_all(frames):      # in the order of the frames
                save(result.mask)

    Each has the network's weights, its intermediate results and its buffers for itself, so the memory is ``in_flight``
    times that of a :class:`Segmenter`.

    Args:
        segmenters: At least one, of one model and opened alike; closed with the pool.

    Attributes:
        in_flight: How many frames are worked on at once.
        path: The model file.
        region: As of :class:`Segmenter`.
        spec: As of :class:`Segmenter`.
        provider: As of :class:`Segmenter`.
        description: One line for a person: that of an engine, and how many there are.
        advice: As of :class:`Segmenter`.
    """

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        _check_count(len(segmenters))
        self.in_flight = len(segmenters)
        first = segmenters[0]
        self.path, self.region = first.path, first.region
        self.spec, self.provider = first.spec, first.provider
        self.description = f"{first.description}, {self.in_flight} in flight"
        self.advice = first.advice
        self._segmenters = tuple(segmenters)
        self._turns = FairLock(len(segmenters))
        self._count = itertools.count()
        self._frames = BufferPool()

    @classmethod
    def open(
        cls,
        path: Union[str, Path],
        provider: str = "auto",
        *,
        in_flight: int = 2,
        threads: Optional[int] = None,
        spec: Optional[ModelSpec] = None,
        region: Union[str, RegionOfInterest, None] = None,
        groups: Sequence[str] = (),
        confidence: bool = False,
    ) -> SegmenterPool:
        """Open a model file ``in_flight`` times; other arguments and errors as in :meth:`Segmenter.open`.

        Args:
            provider: What ``auto`` takes for the first engine the others must take, too.
            in_flight: Engines, at least 1.
            threads: CPU threads of each engine; None: the cores divided among them, at least one for each.

        Raises:
            ConfigError: If ``in_flight`` makes no sense.
        """
        _check_count(in_flight)
        each = threads if threads is not None or in_flight == 1 else max(1, usable_cores() // in_flight)
        with contextlib.ExitStack() as opened:
            segmenters: List[Segmenter] = []
            while len(segmenters) < in_flight:
                taken = segmenters[0].provider if segmenters and provider == "auto" else provider
                segmenter = Segmenter.open(path, taken, spec, each, region=region, groups=groups, confidence=confidence)
                segmenters.append(opened.enter_context(segmenter))
            pool = cls(segmenters)
            opened.pop_all()
            return pool

    def segment(
        self,
        frame: np.ndarray,
        out: Optional[np.ndarray] = None,
        *,
        captured_ns: Optional[int] = None,
        sequence: Optional[int] = None,
    ) -> Result:
        """Segment one frame, as :meth:`Segmenter.segment`; waits for its turn where ``in_flight`` are at work."""
        with self._turns as place:
            number = next(self._count) if sequence is None else sequence
            return self._segmenters[place].segment(frame, out, captured_ns=captured_ns, sequence=number)

    def segment_all(self, frames: Iterable[np.ndarray]) -> Generator[Result, None, None]:
        """Results of all ``frames``, in their order; ``sequence`` is the number of the frame, from 0.

        A frame is taken when there is room for it: at most ``in_flight`` of them are worked on or waiting, and one
        result is with the caller. Each is copied before the next is read, so they may all come in one buffer, as those
        of ``video.read(buffer)``; ``result.frame`` is the copy, whose memory is reused when nothing refers to it. What
        fails, reading a frame or segmenting it, is raised after the results before it. Who leaves the loop, by an
        exception or Ctrl-C, waits for the frames at work, and not for those that wait for their turn.

        Args:
            frames: uint8 (H, W, 3) BGR each, of any sizes; read by the calling thread.

        Raises:
            ConfigError: If the calling thread keeps an engine (:meth:`turn`), for which the frames would wait.
        """
        numbered = enumerate(frames)
        pending: Deque[Future[Result]] = collections.deque()
        executor = ThreadPoolExecutor(self.in_flight, thread_name_prefix="rtda-segment")
        stop = threading.Event()

        def serve(frame: np.ndarray, number: int) -> Result:
            with waits_until(stop):  # others may be at work on the same engines
                return self.segment(frame, sequence=number)

        def begin() -> None:
            try:
                pending.extend(
                    executor.submit(serve, self._copy(frame), number)
                    for number, frame in itertools.islice(numbered, self.in_flight - len(pending))
                )
            except Exception as err:  # of reading them; its turn comes
                failed: Future[Result] = Future()
                failed.set_exception(err)
                pending.append(failed)

        try:
            self._check_not_kept()
            begin()
            while pending:
                self._check_not_kept()
                while not wait((pending[0],), WAKE_S).done:
                    pass  # a wait without end may sleep through Ctrl-C
                result = pending.popleft().result()
                begin()
                yield result
                del result  # its memory is not held while waiting for the next
        finally:
            stop.set()
            for future in pending:
                future.cancel()
            executor.shutdown()

    @property
    def waiting(self) -> int:
        """Threads that wait for an engine."""
        return self._turns.waiting

    def turn(self) -> ContextManager[int]:
        """``with pool.turn():`` waits its turn now, and keeps an engine for the frames of the block."""
        return self._turns.kept()

    def _check_not_kept(self) -> None:
        if self._turns.is_kept:
            raise ConfigError(
                "segment_all cannot go on while this thread keeps an engine of the pool",
                why="its frames are worked on by other threads, which would wait for that engine",
                hint="call it outside of `with pool.turn():`, or pool.segment(frame) inside",
            )

    def _copy(self, frame: np.ndarray) -> np.ndarray:
        check_frame(frame)
        copy = self._frames.take(frame.shape)
        np.copyto(copy, frame)
        return copy

    def warm_up(self, size_hw: Optional[Tuple[int, int]] = None) -> None:
        """Segment one black frame of ``size_hw`` on each engine, one after the other."""
        for segmenter in self._segmenters:
            segmenter.warm_up(size_hw)

    def close(self) -> None:
        """Give the engines' memory back, each after a call in progress. Calling it again does nothing."""
        with contextlib.ExitStack() as closing:
            for segmenter in self._segmenters:
                closing.callback(segmenter.close)

    def __enter__(self) -> SegmenterPool:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


AnySegmenter = Union[Segmenter, SegmenterPool]


def open_segmenter(path: Union[str, Path], provider: str = "auto", *, in_flight: int = 1, **asked: Any) -> AnySegmenter:
    """A :class:`Segmenter`, or a :class:`SegmenterPool` where more than one frame is to be in flight.

    Args:
        asked: ``threads``, ``spec``, ``region``, ``groups`` and ``confidence``, as of both.
    """
    if in_flight == 1:
        return Segmenter.open(path, provider, **asked)
    return SegmenterPool.open(path, provider, in_flight=in_flight, **asked)


def check_in_flight(in_flight: int, policy: str, rate_hz: Optional[float] = None) -> None:
    """Check that frames may be worked on at once.

    Args:
        in_flight: How many.
        policy: ``newest`` or ``every``.
        rate_hz: A rate at which frames are due, as of ``bench --rate``; None: there is none.

    Raises:
        ConfigError: If there is no frame to be in flight, or several where only the newest counts.
    """
    _check_count(in_flight)
    why = "they share the machine, so each takes longer, and the newest is done last"
    if in_flight > 1 and policy == "newest":
        raise ConfigError(
            f"{in_flight} frames in flight would make each mask of a camera older",
            why=why,
            hint="leave --in-flight to recordings; run --policy every takes it of a camera, whose frames it all keeps",
        )
    if in_flight > 1 and rate_hz is not None:
        raise ConfigError(
            f"{in_flight} frames in flight would make each mask older, and at {rate_hz:g} Hz its age is what counts",
            why=why,
            hint="leave --rate out for the highest rate with several in flight, or --in-flight for the age at a rate",
        )


def _check_count(in_flight: int) -> None:
    if in_flight < 1:
        raise ConfigError(f"frames in flight must be at least 1, got {in_flight}", hint="2 is the usual number")
