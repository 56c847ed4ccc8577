"""What a user sees of a pipeline: source -> networks -> sinks, loops, callbacks and the newest result.

What happens where frames come faster than the network runs has two names. ``newest``: the reader keeps one frame, a
newer one takes its place and the count of dropped frames grows; the delay stays that of one frame. ``every``: the
reader waits until there is room; for recordings.

Threads: ``rtda-capture`` owns the source (:mod:`.reader`), ``rtda-infer`` the networks (:mod:`.inference`; with several
frames in flight one thread for each), ``rtda-<sink>`` each sink (:mod:`.sink_thread`). Between them stand bounded
mailboxes; no wait is without a limit (:mod:`.wiring`). The memory of frames and masks is reused once no result
refers to it (:mod:`rtda_runtime.threads.buffers`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Type, Union

from rtda_deploy.errors import StaleFrameError
from rtda_runtime.pipeline.inference import Networks
from rtda_runtime.pipeline.loops import AsyncLoop, Loops
from rtda_runtime.pipeline.options import Patience, PipelineOptions
from rtda_runtime.pipeline.reader import Flow
from rtda_runtime.pipeline.shadow import Shadow, check_one_other, open_shadow
from rtda_runtime.pipeline.wiring import OnResult, OnState, Wiring
from rtda_runtime.pool import AnySegmenter, SegmenterPool, open_segmenter
from rtda_runtime.result import Result
from rtda_runtime.segmenter import OfOneProcess, Segmenter
from rtda_runtime.shift.alarm import ShiftState
from rtda_runtime.shift.support import apart_seconds
from rtda_runtime.shift.watch import OnShift, ShiftWatch
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sources import Source, open_source
from rtda_runtime.threads.mailbox import WAKE_S

__all__ = ["Pipeline"]


class Pipeline(OfOneProcess):
    """Results of a source, one per frame that was segmented: iterated, awaited, handed to a callback, or looked at.

    ::

        with Pipeline.open("model.onnx", source="0") as pipeline:
            for result in pipeline:
                drive(result.mask)
        print(pipeline.stats)

    It starts with the first result that is asked for, or with :meth:`start`. A frame of the source is either segmented,
    counted in ``result.dropped``, or not yet looked at when the pipeline is closed. Errors of the reader and of the
    network are raised in the loop, after the results before them, and by :meth:`join`.

    Under ``every`` the network waits for a loop over the pipeline. Once the loop is left it goes on without waiting,
    and results until the next loop go to sinks only. After ``next(pipeline)`` it waits for the next call, until
    :meth:`join` or :meth:`latest` is called.

    Args:
        segmenter: Closed with the pipeline only if it is one of ``owned``. Several pipelines may share one and take
            turns; under ``newest`` each gives the frame that is newest when its turn comes. Of a
            :class:`SegmenterPool` a pipeline keeps all engines at work under ``every``; under ``newest`` it has one
            frame at work at a time, because more would make each of them older, and leaves the other engines to the
            other cameras.
        source: Closed with the pipeline.
        options: How it runs. None: the usual ones. Single ones may be given by their names, too (``policy="every"``).
        sinks: Each gets results on its own thread; closed with the pipeline.
        compare: A second network for the same frames, with the same classes; its mask is ``result.compared``. While
            a frame waits for it, the first network is free for other pipelines.
        shadow: A candidate of the same classes that looks at the same frames without keeping anybody waiting: on the
            thread ``rtda-shadow``, which gives way to the others, at the newest frame when it is ready for one, at none
            while a camera's frames are dropped. What it sees otherwise stands in :attr:`stats`. Sinks that collect
            get its mask as ``result.compared``; loops do not wait for it.
        on_result: Called with results on the thread ``rtda-callback``, as a sink is: each of a recording, the newest of
            a camera. An exception of it is logged, stops the pipeline and is raised by :meth:`join`.
        on_state: Called with ``live``, ``stale`` or ``lost`` and a sentence when that changes, on the reader's thread.
        on_shift: Under ``options.shift``: called with a :class:`ShiftState` when ``familiar`` becomes ``unfamiliar``
            or back, on the thread ``rtda-shift``.
        patience: With threads that do not answer; None: the usual one of the class.
        owned: Segmenters to close with the pipeline.
    """

    patience = Patience()

    def __init__(
        self,
        segmenter: AnySegmenter,
        source: Source,
        options: Optional[PipelineOptions] = None,
        *,
        sinks: Sequence[Sink] = (),
        compare: Optional[AnySegmenter] = None,
        shadow: Optional[AnySegmenter] = None,
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
        on_shift: Optional[OnShift] = None,
        patience: Optional[Patience] = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        owned: Sequence[AnySegmenter] = (),
        **asked: Any,
    ) -> None:
        self.options = (options or PipelineOptions()).with_changes(asked)
        self.segmenter = segmenter
        self.source = source
        check_one_other(compare, shadow)
        networks = Networks(segmenter, compare, [one for one in owned if one is not shadow])
        self._shadow = None if shadow is None else Shadow(segmenter, shadow, owned=shadow in owned)
        self._flow = Flow(source, self.options, patience or self.patience, clock)
        self._loops = Loops(self._flow)
        asked_shift = self.options.shift
        self._shift = None if asked_shift is None else ShiftWatch(segmenter, apart_seconds(asked_shift), on_shift)
        if self._shift is not None:
            self._shift.keeps = not self._flow.newest  # of a recording every block is tested, each time alike
            sinks = (*sinks, self._shift)
        if self._shadow is not None:
            sinks = (self._shadow, *sinks)  # it ends before those that take what it looked at
        self._wiring = Wiring(
            self._flow,
            networks,
            self._loops,
            sinks=sinks,
            on_result=on_result,
            on_state=on_state,
            shadow=self._shadow,
        )
        self._inference = self._wiring.inference
        self._lock = threading.Lock()
        self._started = self._closed = self._hurried = False

    @classmethod
    def open(
        cls,
        model: Union[str, Path, AnySegmenter],
        source: Union[int, str, Path, Source],
        provider: Optional[str] = None,
        *,
        options: Optional[PipelineOptions] = None,
        sinks: Sequence[Sink] = (),
        compare: Union[str, Path, AnySegmenter, None] = None,
        shadow: Union[str, Path, AnySegmenter, None] = None,
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
        on_shift: Optional[OnShift] = None,
        **asked: Any,
    ) -> Pipeline:
        """Open what is given as a path or an address; what is given open is used as it is.

        Where it fails, source and sinks are closed.

        Args:
            model: A path, or a segmenter that is open.
            source: An address, or a source that is open.
            provider: As ``options.provider``.
            options: How it runs and how paths are opened. None: the usual ones.
            compare: A path, or a segmenter that is open.
            shadow: A path, which is opened on one CPU thread of low priority, or a segmenter that is open.
            asked: Single fields of :class:`PipelineOptions` by their names, such as ``max_frames=100``.

        Other arguments: as of the class.

        Raises:
            ConfigError: If an option makes no sense; if more than one frame is to be in flight under ``newest``.
            RtdaError: Everything :meth:`Segmenter.open` and :func:`open_source` raise.
        """
        with contextlib.ExitStack() as opened:
            for sink in sinks:
                opened.callback(sink.close)
            if isinstance(source, Source):
                opened.callback(source.close)
            if provider is not None:
                asked["provider"] = provider
            how = (options or PipelineOptions()).with_changes(asked)
            if not isinstance(source, Source):
                source = opened.enter_context(open_source(source, reconnect=how.reconnect))
            how.policy_for(source)  # refuses several frames in flight of a camera before a model is loaded
            owned: List[AnySegmenter] = []

            def segmenter_of(given: Union[str, Path, AnySegmenter]) -> AnySegmenter:
                if isinstance(given, (Segmenter, SegmenterPool)):
                    return given
                segmenter = open_segmenter(
                    given, how.provider, in_flight=how.in_flight, threads=how.threads, spec=how.spec
                )
                return mine(segmenter)

            def mine(segmenter: AnySegmenter) -> AnySegmenter:
                opened.enter_context(segmenter)
                owned.append(segmenter)
                return segmenter

            first = segmenter_of(model)
            if isinstance(shadow, (str, Path)):
                shadow = mine(open_shadow(shadow, how.provider, spec=how.spec))
            pipeline = cls(
                first,
                source,
                how,
                sinks=sinks,
                compare=segmenter_of(compare) if compare is not None else None,
                shadow=shadow,
                on_result=on_result,
                on_state=on_state,
                on_shift=on_shift,
                owned=owned,
            )
            opened.pop_all()
            return pipeline

    # What it tells

    @property
    def policy(self) -> str:
        """``newest`` or ``every``."""
        return self._flow.policy

    @property
    def state(self) -> str:
        """Whether results come.

        ``live``; ``stale``: no frame for a while, or only ones too old; ``lost``: the camera is being connected again,
        or an error ended the pipeline; ``ended``: in order, by the end of the source, ``max_frames`` or :meth:`close`.
        """
        if self._flow.error is not None:
            return "lost"
        if self._closed or self._inference.ended:
            return "ended"
        state = self.source.state
        return "stale" if state == "live" and self._inference.newest_is_too_old else state

    @property
    def shift(self) -> Optional[ShiftState]:
        """Whether the frames are ``familiar``, since when, which signal says so and how far it is; None: not asked."""
        return None if self._shift is None else self._shift.state

    @property
    def sink_errors(self) -> Mapping[str, BaseException]:
        """What sinks failed with, by their names."""
        return {sink.sink_name: sink.error for sink in self._wiring.sinks if sink.error is not None}

    @property
    def stats(self) -> Dict[str, Any]:
        """What happened so far, as JSON-ready values.

        ``frames`` segmented, ``captured``, ``dropped`` (captured, not segmented), ``skipped`` (segmented, but the
        iterator took a newer one), ``too_old`` (segmented, but above ``max_age_ms``), ``seconds`` from the first read
        to the newest result (the network's warm-up is over by then), ``fps`` of results, ``policy``, ``provider``,
        ``source``, ``state`` (as :attr:`state`), ``losses`` (how often the camera was lost), ``damaged`` and
        ``outdated`` (left out by the source, and not captured: not whole, or old when they came), ``threads`` at work,
        ``sinks`` (by name: ``written``, ``dropped``, ``error``, ``stages``), and ``stages``: milliseconds per stage as
        :meth:`StageTimes.summary`; ``capture`` is reading a frame, which for a camera is mostly waiting for it, and
        ``age`` is from capture to finished mask. Under ``options.shift`` also ``shift``: :meth:`ShiftState.to_dict`.
        Beside a shadow also ``shadow``: :meth:`.Shadow.told`.
        """
        threads = (*self._wiring.threads, *self._inference.helpers)
        started_ns, frames = self._wiring.reader.started_ns, self._inference.frames_given
        sinks = {sink.sink_name: sink.stats for sink in self._wiring.sinks}
        seconds = (self._inference.newest_ns - started_ns) / 1e9 if started_ns is not None and frames else 0.0
        return {
            "frames": frames,
            "captured": self._flow.frames.arrived,
            "dropped": self._flow.frames.dropped,
            "skipped": self._loops.skipped,
            "too_old": self._inference.too_old,
            "seconds": seconds,
            "fps": frames / seconds if seconds > 0 else 0.0,
            "policy": self.policy,
            "provider": self.segmenter.provider,
            "source": self.source.name,
            "state": self.state,
            "losses": self.source.losses,
            "damaged": self.source.damaged,
            "outdated": self.source.outdated,
            "threads": [thread.name for thread in threads if thread.is_alive()],
            "sinks": sinks,
            "stages": self._wiring.times.summary(),
            **({} if self._shift is None else {"shift": self._shift.state.to_dict()}),
            **({} if self._shadow is None else {"shadow": self._shadow.told(sinks[self._shadow.name])}),
        }

    # How results are had

    def __iter__(self) -> Iterator[Result]:
        self._loops.begin()
        try:
            self.start()
            while True:
                result = self._loops.take()
                if result is None:
                    return
                yield result
                del result  # its memory is not held while waiting for the next
        finally:
            self._loops.leave()

    def __next__(self) -> Result:
        self._loops.begin()
        try:
            self.start()
            result = self._loops.take()
        finally:
            self._loops.leave_for_now()
        if result is None:
            raise StopIteration
        return result

    def aiter(self) -> AsyncIterator[Result]:
        """The same results for an event loop, which is never blocked: ``async for result in pipeline.aiter()``."""
        return AsyncLoop(self._loops, self.start)

    def latest(self, max_age_ms: Optional[float] = None) -> Result:
        """The newest result, at once; for loops that run at a rate of their own.

        Raises:
            StaleFrameError: If there is none yet, it is older than ``max_age_ms`` by now, or an error ended the
                pipeline. ``why`` says what is known about the reason: a lost camera, that error. After an end in order
                the last result is still given; :attr:`state` is ``ended`` then.
        """
        self.start()
        self._loops.pause_unless_running()
        result, error = self._inference.newest, self._flow.error
        if error is not None:
            raise StaleFrameError(
                f"{self.source.name} gives no results any more", why=self._why(), hint="stop, and open it again"
            ) from error
        if result is None:
            ended = self.state == "ended"
            raise StaleFrameError(
                f"{self.source.name} has given no result" + ("" if ended else " yet"),
                why=self._why(),
                hint="open it again" if ended else "ask again in a moment",
            )
        age_ms = (self._flow.clock() - result.captured_ns) / 1e6
        if max_age_ms is not None and age_ms > max_age_ms:
            raise StaleFrameError(
                f"the newest result of {self.source.name} is {age_ms:.0f} ms old, the limit is {max_age_ms:g} ms",
                why=self._why(),
                hint="stop, or slow down, until there is a newer one",
            )
        return result

    def snapshot(self) -> Result:
        """A copy of the newest result, to be kept.

        Raises:
            StaleFrameError: If there is none yet.
        """
        return self.latest().copy()

    # Beginning and end

    def start(self) -> None:
        """Start the threads; for callbacks, sinks and :meth:`latest`. Calling it again does nothing.

        An iteration that begins later begins with what is newest then.
        """
        with self._lock:
            if self._started or self._closed:
                return
            self._started = True
            self._wiring.start()

    def join(self, timeout_s: Optional[float] = None) -> bool:
        """Start where that is still to do, and wait for the end: of the source, of ``max_frames``, by :meth:`close`.

        Args:
            timeout_s: Wait no longer than this; None: for as long as it takes.

        Returns:
            Whether it ended, sinks included.

        Raises:
            BaseException: What the pipeline ended with, from the source, the network or the callback.
        """
        self.start()
        self._loops.pause_unless_running()
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._wiring.threads:
            while not thread.join_until(min(deadline, time.monotonic() + WAKE_S)):
                if time.monotonic() >= deadline:
                    return False
        if self._flow.error is not None:
            raise self._flow.error
        return True

    def close(self) -> None:
        """Stop reading, write what sinks were given, close everything. Calling it again waits for that, too.

        Takes a second at most, unless a file needs longer to be finished: that is waited for. Where an exception ends
        the wait (Ctrl-C), the next call waits for a second at most. A driver or a sink that does not return is left
        behind with a warning.
        """
        with self._lock:
            self._closed = True
        self._wiring.stop()
        try:
            self._wiring.await_end(patient=not self._hurried)
        except BaseException:
            self._hurried = True
            raise

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _why(self) -> str:
        error = self._flow.error
        if error is not None:
            return str(error) or type(error).__name__
        state = self.state
        if state == "ended":
            return "the pipeline has ended"
        return "" if state == "live" else f"the camera is {state}"
