"""Source -> segmenter -> sinks, with a named answer to "what if frames come faster than the network runs".

``newest``: the reader keeps one frame, a newer one takes its place and the count of dropped frames grows; the delay
stays that of one frame. ``every``: the reader waits until there is room; for recordings.

Threads: ``rtda-capture`` owns the source (:mod:`.reader`), ``rtda-infer`` the network (:mod:`.inference`; with several
frames in flight one thread for each), ``rtda-<sink>`` each sink (:mod:`.sink_thread`). Between them stand bounded
mailboxes; no wait is without a limit. Frames and masks lie in memory that is used again when nobody holds it any more
(:mod:`.buffers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Type, Union

from rtda_deploy.errors import StaleFrameError
from rtda_runtime.machine.processes import OfOneProcess
from rtda_runtime.pipeline.inference import Inference, check_comparable
from rtda_runtime.pipeline.options import PipelineOptions
from rtda_runtime.pipeline.reader import Captured, Reader
from rtda_runtime.pipeline.sink_thread import SinkThread
from rtda_runtime.pool import AnySegmenter, SegmenterPool, open_segmenter
from rtda_runtime.result import Result
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sources import Source, open_source
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox
from rtda_runtime.threads.named import NamedThread
from rtda_runtime.threads.pace import Pace
from rtda_runtime.timing import StageTimes

__all__ = ["Pipeline"]

OnResult = Callable[[Result], None]
OnState = Callable[[str, str], None]

_AHEAD = 2  # frames the reader, and results the network, may be ahead under "every"
_STOP_S = 0.8  # close() waits so long for threads that are stuck, in a driver or a sink
_HURRY_S = 0.25  # and so long sinks may write what waits for them, where frames may be dropped
_STUCK_S = 30.0  # a sink that keeps everything and takes so long for one result is stuck

_log = logging.getLogger(__name__)


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

    Under ``every`` the network waits for a loop over the pipeline. It waits for nobody once the loop is left, and the
    results of that time are nobody's; ``next(pipeline)`` is waited for until :meth:`join` or :meth:`latest` is called.

    Args:
        segmenter: Closed with the pipeline only if it is one of ``owned``. Several pipelines may share one and have
            turns; under ``newest`` each gives the frame that is newest when its turn comes. Of a
            :class:`SegmenterPool` a pipeline keeps all engines at work under ``every``; under ``newest`` it has one
            frame at work at a time, because more would make each of them older, and leaves the other engines to the
            other cameras.
        source: Closed with the pipeline.
        options: How it runs. None: the usual ones. Single ones may be given by their names, too (``policy="every"``).
        sinks: Each gets results on its own thread; closed with the pipeline.
        compare: A second network for the same frames, with the same classes; its mask is ``result.compared``. A frame
            waits for its turn on it only after the first network is left to others.
        on_result: Called with results on the thread ``rtda-callback``, as a sink is: each of a recording, the newest of
            a camera. An exception of it is logged, stops the pipeline and is raised by :meth:`join`.
        on_state: Called with ``live``, ``stale`` or ``lost`` and a sentence when that changes, on the reader's thread.
        owned: Segmenters to close with the pipeline.
    """

    def __init__(
        self,
        segmenter: AnySegmenter,
        source: Source,
        options: Optional[PipelineOptions] = None,
        *,
        sinks: Sequence[Sink] = (),
        compare: Optional[AnySegmenter] = None,
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        owned: Sequence[AnySegmenter] = (),
        **asked: Any,
    ) -> None:
        options = (options or PipelineOptions()).with_changes(asked)
        check_comparable(segmenter, compare)
        self.segmenter = segmenter
        self.source = source
        self.policy = options.policy_for(source)
        self.options = options
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.RLock()  # a loop may be left by the garbage collector, at any place
        self._started = self._closed = self._hurried = False
        self._loops = 0
        self._counted = 0  # for max_frames
        self._stop = threading.Event()
        self._times = StageTimes()
        newest = self.policy == "newest"
        self._frames: Mailbox[Captured] = Mailbox(1 if newest else _AHEAD, replace=newest)
        self._results: Mailbox[Result] = Mailbox(1 if newest else _AHEAD, replace=self._is_newest_only)
        self._results.pause()
        ready, pace = threading.Event(), Pace(options.rate, clock) if options.rate is not None else None
        self._reader = Reader(
            source, self._frames, ready=ready, stop=self._stop, timeout_s=options.timeout_s, pace=pace, clock=clock
        )
        self._inference = Inference(
            segmenter,
            source,
            self._frames,
            in_flight=1 if newest else segmenter.in_flight,
            newest=newest,
            compare=compare,
            ready=ready,
            stop=self._stop,
            give=self._give,
            end=self._end,
            timeout_s=options.timeout_s,
            period_s=pace.period_s if pace is not None else 0.0,
            max_age_ms=options.max_age_ms,
            owned=owned,
            clock=clock,
        )
        self._sinks = self._sink_threads(sinks, on_result)
        source.on_state = self._tell_state

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
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
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
                opened.enter_context(segmenter)
                owned.append(segmenter)
                return segmenter

            pipeline = cls(
                segmenter_of(model),
                source,
                how,
                sinks=sinks,
                compare=segmenter_of(compare) if compare is not None else None,
                on_result=on_result,
                on_state=on_state,
                owned=owned,
            )
            opened.pop_all()
            return pipeline

    # What it tells

    @property
    def state(self) -> str:
        """Whether results come.

        ``live``; ``stale``: no frame for a while, or only ones too old; ``lost``: the camera is being connected again,
        or an error ended the pipeline; ``ended``: in order, by the end of the source, ``max_frames`` or :meth:`close`.
        """
        if self._inference.error is not None:
            return "lost"
        if self._closed or self._inference.ended:
            return "ended"
        state = self.source.state
        return "stale" if state == "live" and self._inference.newest_is_too_old else state

    @property
    def sink_errors(self) -> Mapping[str, BaseException]:
        """What sinks failed with, by their names."""
        return {sink.sink_name: sink.error for sink in self._sinks if sink.error is not None}

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
        ``age`` is from capture to finished mask.
        """
        started_ns, frames = self._reader.started_ns, self._inference.frames_given
        seconds = (self._inference.newest_ns - started_ns) / 1e9 if started_ns is not None and frames else 0.0
        return {
            "frames": frames,
            "captured": self._frames.arrived,
            "dropped": self._frames.dropped,
            "skipped": self._results.dropped,
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
            "threads": [thread.name for thread in (*self._threads, *self._inference.helpers) if thread.is_alive()],
            "sinks": {sink.sink_name: sink.stats for sink in self._sinks},
            "stages": self._times.summary(),
        }

    # How results are had

    def __iter__(self) -> Iterator[Result]:
        self._begin_loop()
        try:
            while True:
                result = self._take()
                if result is None:
                    return
                yield result
                del result  # its memory is not held while waiting for the next
        finally:
            self._leave_loop()

    def __next__(self) -> Result:
        self._begin_loop()
        try:
            result = self._take()
        finally:
            with self._lock:  # what comes until the next call is kept for it
                self._loops -= 1
        if result is None:
            raise StopIteration
        return result

    def aiter(self) -> AsyncIterator[Result]:
        """The same results for an event loop, which is never blocked: ``async for result in pipeline.aiter()``."""
        return _EventLoop(self)

    def latest(self, max_age_ms: Optional[float] = None) -> Result:
        """The newest result, at once; for loops that run at a rate of their own.

        Raises:
            StaleFrameError: If there is none yet, it is older than ``max_age_ms`` by now, or an error ended the
                pipeline. ``why`` says what is known about the reason: a lost camera, that error. After an end in order
                the last result is still given; :attr:`state` is ``ended`` then.
        """
        self.start()
        self._no_loop_is_waited_for()
        result, error = self._inference.newest, self._inference.error
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
        age_ms = (self._clock() - result.captured_ns) / 1e6
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
            for thread in self._threads:
                thread.start()

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
        self._no_loop_is_waited_for()
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            while not thread.join_until(min(deadline, time.monotonic() + WAKE_S)):
                if time.monotonic() >= deadline:
                    return False
        if self._inference.error is not None:
            raise self._inference.error
        return True

    def close(self) -> None:
        """Stop reading, write what sinks were given, close everything. Calling it again waits for that, too.

        Takes a second at most, unless a file needs longer to be finished: that is waited for. Where an exception ends
        the wait (Ctrl-C), the next call waits for a second at most. A driver or a sink that does not return is left
        behind with a warning.
        """
        with self._lock:
            self._closed = True
        if not self._stop.is_set():  # it did not come to its end by itself
            for sink in self._sinks:
                sink.hurry(time.monotonic() + _HURRY_S)
        self._stop.set()
        self._frames.close()
        self._results.close()
        self.source.interrupt()
        try:
            self._close_unused()
            self._await_end(patient=not self._hurried)
        except BaseException:
            self._hurried = True
            raise

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # What the threads call

    def _give(self, result: Result) -> bool:
        self._times.add(result.timing)
        for sink in self._sinks:
            sink.give(result)
        looped = self._results.put(result)
        return True if looped and self._is_newest_only else self._count()

    def _end(self, error: Optional[BaseException]) -> None:
        for sink in self._sinks:
            sink.end()
        self._results.end(error)

    def _tell_state(self, state: str, sentence: str) -> None:
        listeners: List[OnState] = [sink.sink.on_state for sink in self._sinks if sink.error is None]
        for listener in (*listeners, *([self._on_state] if self._on_state is not None else [])):
            try:
                listener(state, sentence)
            except Exception as err:  # the reader must go on reading
                _log.warning("telling that the camera is %s: %s", state, err, exc_info=True)

    # Around it

    @property
    def _is_newest_only(self) -> bool:
        """Whether a loop gets the newest result, so that it is counted for ``max_frames`` when it is taken."""
        return self.policy == "newest" and not self.options.each_result

    @property
    def _threads(self) -> List[NamedThread]:
        return [self._reader, self._inference, *self._sinks]

    def _sink_threads(self, sinks: Sequence[Sink], on_result: Optional[OnResult]) -> List[SinkThread]:
        every = self.policy == "every"
        shared: Dict[str, Any] = {"times": self._times, "size_wh": self.source.size_wh}
        threads: List[SinkThread] = []
        for sink in (*sinks, *([_Callback(on_result)] if on_result is not None else [])):
            alike = sum(thread.sink.name == sink.name for thread in threads)
            name = f"{sink.name}-{alike + 1}" if alike else sink.name
            called = isinstance(sink, _Callback)
            fail = self._inference.fail if called else None
            threads.append(SinkThread(sink, name, wait=every and (sink.keeps or called), on_error=fail, **shared))
        return threads

    def _begin_loop(self) -> None:
        with self._lock:
            self._loops += 1
            self._results.resume()
        self.start()

    def _leave_loop(self) -> None:
        with self._lock:
            self._loops -= 1
            self._no_loop_is_waited_for()

    def _no_loop_is_waited_for(self) -> None:
        """The network goes on where nobody is in a loop, whatever was taken before."""
        with self._lock:
            if not self._loops:
                self._results.pause()

    def _take(self) -> Optional[Result]:
        while True:
            with contextlib.suppress(TimeoutError):
                return self._take_now(WAKE_S)

    def _take_now(self, timeout_s: float = 0.0) -> Optional[Result]:
        taken = self._results.take(timeout_s)
        if taken is None:
            return None
        if self._is_newest_only and not self._count():
            self._stop.set()
            self._frames.close()
            self._results.end()
            self._results.pause()  # a newer one is not given any more
        return _with_skipped(*taken)

    def _count(self) -> bool:
        """Count one for ``max_frames``; tells whether there shall be more."""
        with self._lock:
            self._counted += 1
            return self.options.max_frames is None or self._counted < self.options.max_frames

    def _why(self) -> str:
        if self._inference.error is not None:
            return str(self._inference.error) or type(self._inference.error).__name__
        state = self.state
        if state == "ended":
            return "the pipeline has ended"
        return "" if state == "live" else f"the camera is {state}"

    def _close_unused(self) -> None:
        """Close what belongs to threads that never began: nobody asked for a result, or Ctrl-C came in between."""
        if not self._reader.began():
            self.source.close()
        if not self._inference.began():
            self._end(None)
            self._inference.release()
        for sink in self._sinks:
            if not sink.began():
                sink.close_unused()

    def _await_end(self, *, patient: bool) -> None:
        start = time.monotonic()
        if not self._inference.join_until(start + _STOP_S):
            _log.warning("the network does not return; %s ends when it does", self._inference.name)
        for sink in self._sinks:
            if not (_await_file(sink) if patient and sink.sink.keeps else sink.join_until(start + _STOP_S)):
                sink.abandon()
                _log.warning("sink %s does not return; its thread ends when it does", sink.sink_name)
        if not self._reader.join_until(start + _STOP_S):
            _log.warning("%s does not return from its driver; its reader ends when it does", self.source.name)


def _await_file(sink: SinkThread) -> bool:
    """Wait for as long as the sink writes, or finishes its file; tells whether it ended and is not stuck."""
    written, since = sink.written, time.monotonic()
    while not sink.join_until(time.monotonic() + WAKE_S):
        if sink.written != written or sink.finishing:
            written, since = sink.written, time.monotonic()
        elif time.monotonic() - since > _STUCK_S:
            return False
    return True


class _EventLoop(AsyncIterator[Result]):
    """Results for an event loop. Not an async generator: of one that is left, the end waits for a turn of the loop."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._changed: Optional[asyncio.Event] = None  # made in the loop it belongs to
        self._left = False

    def __aiter__(self) -> _EventLoop:
        return self

    async def __anext__(self) -> Result:
        if self._left:
            raise StopAsyncIteration
        if self._changed is None:
            self._changed = self._begin()
        try:
            while True:
                self._changed.clear()
                try:
                    result = self._pipeline._take_now()
                except TimeoutError:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), WAKE_S)
                    continue
                if result is None:
                    raise StopAsyncIteration
                return result
        except Exception:  # the end, or what it ended with; who was only interrupted may ask again
            self._leave()
            raise

    async def aclose(self) -> None:
        """Leave the loop; so does forgetting it."""
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def _begin(self) -> asyncio.Event:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(changed.set)

        self._pipeline._results.on_change = wake
        self._pipeline._begin_loop()
        return changed

    def _leave(self) -> None:
        if self._changed is not None and not self._left:
            self._pipeline._results.on_change = None
            self._pipeline._leave_loop()
        self._left = True


class _Callback(Sink):
    """A function as a sink."""

    name = "callback"

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result

    def write(self, result: Result) -> Mapping[str, float]:
        self._on_result(result)
        return {}

    def close(self) -> None:
        """Nothing to finish."""


def _with_skipped(result: Result, skipped: int) -> Result:
    """The result, counting the ones that the iterator did not take as dropped."""
    return dataclasses.replace(result, dropped=result.dropped + skipped) if skipped else result
