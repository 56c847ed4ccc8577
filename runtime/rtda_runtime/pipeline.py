"""Source -> segmenter -> sinks, with a named answer to "what if frames come faster than the network runs".

``newest``: the reader keeps one frame, a newer one takes its place and the count of dropped frames grows; the delay
stays that of one frame. ``every``: the reader waits until there is room; for recordings.

Threads: ``rtda-capture`` owns the source (:mod:`.reader`), ``rtda-infer`` the network, ``rtda-<sink>`` each sink
(:mod:`.sink_thread`). Between them stand bounded mailboxes; no wait is without a limit. Frames and masks lie in memory
that is used again when nobody holds it any more (:mod:`.buffers`).
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

from rtda_deploy.errors import ConfigError, StaleFrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.inference import Inference, check_comparable
from rtda_runtime.mailbox import WAKE_S, Mailbox
from rtda_runtime.pace import Pace
from rtda_runtime.reader import Captured, Reader
from rtda_runtime.result import Result
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sink_thread import SinkThread
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sources import Source, open_source
from rtda_runtime.threads import NamedThread
from rtda_runtime.timing import StageTimes

__all__ = ["POLICIES", "Pipeline"]

POLICIES = ("newest", "every")

OnResult = Callable[[Result], None]
OnState = Callable[[str, str], None]

_AHEAD = 2  # frames the reader, and results the network, may be ahead under "every"
_STOP_S = 0.8  # close() waits so long for threads that are stuck, in a driver or a sink
_HURRY_S = 0.25  # and so long sinks may write what waits for them, where frames may be dropped
_FINISH_S = 30.0  # and so long for sinks that keep everything: a video's index is written at its end

_log = logging.getLogger(__name__)


class Pipeline:
    """Results of a source, one per frame that was segmented: iterated, awaited, handed to a callback, or looked at.

    ::

        with Pipeline.open("model.onnx", source="0") as pipeline:
            for result in pipeline:
                drive(result.mask)
        print(pipeline.stats)

    It starts with the first result that is asked for, or with :meth:`start`. A frame of the source is either segmented,
    counted in ``result.dropped``, or not yet looked at when the pipeline is closed. Errors of the reader and of the
    network are raised in the loop, after the results before them, and by :meth:`join`.

    Args:
        segmenter: Closed with the pipeline only if it is one of ``owned``.
        source: Closed with the pipeline.
        policy: ``newest`` or ``every``; None: newest for a live source, every for a recording.
        max_frames: Ends after so many results.
        sinks: Each gets results on its own thread; closed with the pipeline.
        timeout_s: No frame for this long is an error, unless the source says that it is being connected again.
        max_age_ms: A result older than this when it is done is not given to anybody, but counted.
        compare: A second network for the same frames, with the same classes; its mask is ``result.compared``.
        on_result: Called with results on the thread ``rtda-callback``, as a sink is: each of a recording, the newest of
            a camera. An exception of it stops the pipeline and is raised by :meth:`join`.
        on_state: Called with ``live``, ``stale`` or ``lost`` and a sentence when that changes, on the reader's thread.
        rate: Frames per second to take from a source that gives more.
        owned: Segmenters to close with the pipeline.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        source: Source,
        *,
        policy: Optional[str] = None,
        max_frames: Optional[int] = None,
        sinks: Sequence[Sink] = (),
        timeout_s: float = 5.0,
        max_age_ms: Optional[float] = None,
        compare: Optional[Segmenter] = None,
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
        rate: Optional[float] = None,
        clock: Callable[[], int] = time.perf_counter_ns,
        owned: Sequence[Segmenter] = (),
    ) -> None:
        _check(policy, max_frames, timeout_s, max_age_ms)
        check_comparable(segmenter, compare)
        self.segmenter = segmenter
        self.source = source
        self.policy = policy or ("newest" if source.live else "every")
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.Lock()
        self._started = self._closed = self._iterated = False
        self._stop = threading.Event()
        self._times = StageTimes()
        newest = self.policy == "newest"
        self._frames: Mailbox[Captured] = Mailbox(1 if newest else _AHEAD, replace=newest)
        # A loop that was promised a number of results gets each of them, however slow it is.
        self._results: Mailbox[Result] = Mailbox(1 if newest else _AHEAD, replace=newest and max_frames is None)
        ready, pace = threading.Event(), Pace(rate, clock) if rate is not None else None
        self._reader = Reader(
            source, self._frames, ready=ready, stop=self._stop, timeout_s=timeout_s, pace=pace, clock=clock
        )
        self._inference = Inference(
            segmenter,
            source,
            self._frames,
            compare=compare,
            ready=ready,
            stop=self._stop,
            give=self._give,
            end=self._end,
            timeout_s=timeout_s,
            period_s=pace.period_s if pace is not None else 0.0,
            max_frames=max_frames,
            max_age_ms=max_age_ms,
            owned=owned,
            clock=clock,
        )
        self._sinks = self._sink_threads(sinks, on_result)
        source.on_state = self._tell_state

    @classmethod
    def open(
        cls,
        model: Union[str, Path, Segmenter],
        source: Union[int, str, Path, Source],
        provider: str = "auto",
        *,
        spec: Optional[ModelSpec] = None,
        policy: Optional[str] = None,
        max_frames: Optional[int] = None,
        sinks: Sequence[Sink] = (),
        timeout_s: float = 5.0,
        threads: Optional[int] = None,
        reconnect: bool = True,
        max_age_ms: Optional[float] = None,
        compare: Union[str, Path, Segmenter, None] = None,
        on_result: Optional[OnResult] = None,
        on_state: Optional[OnState] = None,
        rate: Optional[float] = None,
    ) -> Pipeline:
        """Open what is given as a path or an address; what is given open is used as it is.

        Where it fails, source and sinks are closed.

        Args:
            reconnect: Open a camera again when it is lost, for as long as that takes; False: that is an error.

        Raises:
            RtdaError: Everything :meth:`Segmenter.open` and :func:`open_source` raise.
        """
        with contextlib.ExitStack() as opened:
            for sink in sinks:
                opened.callback(sink.close)
            if isinstance(source, Source):
                opened.callback(source.close)
            _check(policy, max_frames, timeout_s, max_age_ms)
            if not isinstance(source, Source):
                source = opened.enter_context(open_source(source, reconnect=reconnect))
            owned: List[Segmenter] = []

            def segmenter_of(given: Union[str, Path, Segmenter]) -> Segmenter:
                if isinstance(given, Segmenter):
                    return given
                owned.append(opened.enter_context(Segmenter.open(given, provider, spec, threads)))
                return owned[-1]

            pipeline = cls(
                segmenter_of(model),
                source,
                policy=policy,
                max_frames=max_frames,
                sinks=sinks,
                timeout_s=timeout_s,
                max_age_ms=max_age_ms,
                compare=segmenter_of(compare) if compare is not None else None,
                on_result=on_result,
                on_state=on_state,
                rate=rate,
                owned=owned,
            )
            opened.pop_all()
            return pipeline

    # What it tells

    @property
    def state(self) -> str:
        """``live``; ``stale``: no frame for a while, or only ones too old; ``lost``: being connected again."""
        state = self.source.state
        return "stale" if state == "live" and self._inference.newest_is_too_old else state

    @property
    def sink_errors(self) -> Mapping[str, Exception]:
        """What sinks failed with, by their names."""
        return {sink.sink_name: sink.error for sink in self._sinks if sink.error is not None}

    @property
    def stats(self) -> Dict[str, Any]:
        """What happened so far, as JSON-ready values.

        ``frames`` segmented, ``captured``, ``dropped`` (captured, not segmented), ``skipped`` (segmented, but the
        iterator took a newer one), ``too_old`` (segmented, but above ``max_age_ms``), ``seconds`` from the first read
        to the newest result (the network's warm-up is over by then), ``fps`` of results, ``policy``, ``provider``,
        ``source``, ``state``, ``losses`` (how often the camera was lost), ``threads`` at work, ``sinks`` (by name:
        ``written``, ``dropped``, ``error``, ``stages``), and ``stages``: milliseconds per stage as
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
            "threads": [thread.name for thread in self._threads if thread.is_alive()],
            "sinks": {sink.sink_name: sink.stats for sink in self._sinks},
            "stages": self._times.summary(),
        }

    # How results are had

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        self._iterate()
        while True:
            with contextlib.suppress(TimeoutError):
                taken = self._results.take(WAKE_S)
                if taken is None:
                    raise StopIteration
                return _with_skipped(*taken)

    async def aiter(self) -> AsyncIterator[Result]:
        """The same results for an event loop, which is never blocked: ``async for result in pipeline.aiter()``."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(changed.set)

        self._results.on_change = wake
        self._iterate()
        try:
            while True:
                changed.clear()
                try:
                    taken = self._results.take(0.0)
                except TimeoutError:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(changed.wait(), WAKE_S)
                    continue
                if taken is None:
                    return
                yield _with_skipped(*taken)
        finally:
            self._results.on_change = None

    def latest(self, max_age_ms: Optional[float] = None) -> Result:
        """The newest result, at once; for loops that run at a rate of their own.

        Raises:
            StaleFrameError: If there is none yet, or it is older than ``max_age_ms`` by now. ``why`` says what is known
                about the reason: a lost camera, the error that ended the pipeline.
        """
        self.start()
        result = self._inference.newest
        if result is None:
            raise StaleFrameError(
                f"{self.source.name} has given no result yet", why=self._why(), hint="ask again in a moment"
            ) from self._inference.error
        age_ms = (self._clock() - result.captured_ns) / 1e6
        if max_age_ms is not None and age_ms > max_age_ms:
            raise StaleFrameError(
                f"the newest result of {self.source.name} is {age_ms:.0f} ms old, the limit is {max_age_ms:g} ms",
                why=self._why(),
                hint="stop, or slow down, until there is a newer one",
            ) from self._inference.error
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
            Exception: What the pipeline ended with, from the source, the network or the callback.
        """
        self.start()
        deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            while not thread.join_until(min(deadline, time.monotonic() + WAKE_S)):
                if time.monotonic() >= deadline:
                    return False
        if self._inference.error is not None:
            raise self._inference.error
        return True

    def close(self) -> None:
        """Stop reading, write what sinks were given, close everything. Calling it again does nothing.

        Takes a second at most, unless a file needs longer to be finished. A driver or a sink that does not return is
        left behind with a warning.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if not self._stop.is_set():  # it did not come to its end by itself
            for sink in self._sinks:
                sink.hurry(time.monotonic() + _HURRY_S)
        self._stop.set()
        self._frames.close()
        self._results.close()
        self.source.interrupt()
        self._close_unused()
        self._await_end()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # What the threads call

    def _give(self, result: Result) -> None:
        self._times.add(result.timing)
        for sink in self._sinks:
            sink.give(result)
        if self._iterated:
            self._results.put(result)

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
    def _threads(self) -> List[NamedThread]:
        return [self._reader, self._inference, *self._sinks]

    def _sink_threads(self, sinks: Sequence[Sink], on_result: Optional[OnResult]) -> List[SinkThread]:
        every = self.policy == "every"
        shared: Dict[str, Any] = {"times": self._times, "size_wh": self.source.size_wh}
        threads: List[SinkThread] = []
        for sink in sinks:
            alike = sum(thread.sink.name == sink.name for thread in threads)
            name = f"{sink.name}-{alike + 1}" if alike else sink.name
            threads.append(SinkThread(sink, name, wait=every and sink.keeps, **shared))
        if on_result is not None:
            callback = _Callback(on_result)
            threads.append(SinkThread(callback, callback.name, wait=every, on_error=self._inference.fail, **shared))
        return threads

    def _iterate(self) -> None:
        self._iterated = True
        self.start()

    def _why(self) -> str:
        if self._inference.error is not None:
            return str(self._inference.error)
        return "" if self.state == "live" else f"the camera is {self.state}"

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

    def _await_end(self) -> None:
        start = time.monotonic()
        if not self._inference.join_until(start + _STOP_S):
            _log.warning("the network does not return; %s ends when it does", self._inference.name)
        for sink in self._sinks:
            if not sink.join_until(start + (_FINISH_S if sink.sink.keeps else _STOP_S)):
                sink.abandon()
                _log.warning("sink %s does not return; its thread ends when it does", sink.sink_name)
        if not self._reader.join_until(start + _STOP_S):
            _log.warning("%s does not return from its driver; its reader ends when it does", self.source.name)


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


def _check(policy: Optional[str], max_frames: Optional[int], timeout_s: float, max_age_ms: Optional[float]) -> None:
    if policy is not None and policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}", hint=f"known: {', '.join(POLICIES)}")
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"max_frames must be at least 1, got {max_frames}", hint="leave it out for all frames")
    if not timeout_s > 0:
        raise ConfigError(f"timeout must be positive, got {timeout_s:g}", hint="try 5")
    if max_age_ms is not None and not max_age_ms > 0:
        raise ConfigError(f"the largest age must be positive, got {max_age_ms:g} ms", hint="leave it out for any age")
