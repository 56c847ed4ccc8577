"""Source -> segmenter -> sinks, with a named answer to "what if frames come faster than the network runs".

``newest``: the reader keeps one frame, a newer one takes its place and the count of dropped frames grows; the delay
stays that of one frame. ``every``: the reader waits until there is room; for recordings.

Threads: the reader owns the source (reads it, closes it); everything else happens in the thread that iterates.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Iterator, Optional, Sequence, Tuple, Type, Union

from rtda_deploy.errors import CameraError, ConfigError, SourceError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.result import Result
from rtda_runtime.segmenter import Segmenter
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sources import Frame, Source, open_source
from rtda_runtime.timing import StageTimes

__all__ = ["POLICIES", "Pipeline"]

POLICIES = ("newest", "every")

_AHEAD = 2  # frames the reader may be ahead under "every"
_WAKE_S = 0.2  # longest wait between two looks at whether to stop
_GRACE_S = 1.0  # the consumer waits this much longer than the reader, so that the reader's better error comes first
_STOP_S = 0.8  # close() waits so long for a reader that is stuck inside a driver

_log = logging.getLogger(__name__)


class Pipeline:
    """An iterator of :class:`Result`, one per frame that was segmented.

    ::

        with Pipeline.open("model.onnx", source="0") as pipeline:
            for result in pipeline:
                drive(result.mask)
        print(pipeline.stats)

    A frame of the source is either given as a result, counted in ``result.dropped``, or not yet looked at when the
    pipeline is closed. Errors of the reader are raised in the loop, after the frames read before them.

    Args:
        segmenter: Closed with the pipeline only if the pipeline opened it.
        source: Closed with the pipeline.
        policy: ``newest`` or ``every``; None: newest for a live source, every for a recording.
        max_frames: Ends after so many results.
        sinks: Get every result, in the thread that iterates, before the loop's body does; closed with the pipeline.
        timeout_s: No frame for this long is an error.
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
        clock: Callable[[], int] = time.perf_counter_ns,
        own_segmenter: bool = False,
    ) -> None:
        _check(policy, max_frames, timeout_s)
        self.segmenter = segmenter
        self.source = source
        self.policy = policy or ("newest" if source.live else "every")
        self._max_frames = max_frames
        self._sinks = tuple(sinks)
        self._timeout_s = timeout_s
        self._clock = clock
        self._own_segmenter = own_segmenter
        self._mailbox = _Mailbox(1 if self.policy == "newest" else _AHEAD, replace=self.policy == "newest")
        self._stop = threading.Event()
        self._reader: Optional[threading.Thread] = None
        self._times = StageTimes()
        self._frames = 0
        self._dropped = 0
        self._started_ns: Optional[int] = None
        self._newest_ns = 0
        self._closed = False

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
    ) -> Pipeline:
        """Open what is given as a path or an address; what is given open is used as it is.

        Raises:
            RtdaError: Everything :meth:`Segmenter.open` and :func:`open_source` raise.
        """
        _check(policy, max_frames, timeout_s)
        opened = source if isinstance(source, Source) else open_source(source)
        try:
            own = not isinstance(model, Segmenter)
            segmenter = model if isinstance(model, Segmenter) else Segmenter.open(model, provider, spec, threads)
        except BaseException:
            opened.close()
            raise
        return cls(
            segmenter,
            opened,
            policy=policy,
            max_frames=max_frames,
            sinks=sinks,
            timeout_s=timeout_s,
            own_segmenter=own,
        )

    @property
    def stats(self) -> Dict[str, Any]:
        """What happened so far, as JSON-ready values.

        ``frames`` given, ``captured``, ``dropped``, ``seconds`` from the first read to the newest result (the
        network's warm-up is over by then), ``fps`` of results, ``policy``, ``provider``, ``source``, and ``stages``:
        milliseconds per stage as :meth:`StageTimes.summary`; ``capture`` is reading a frame, which for a camera is
        mostly waiting for it, and ``age`` is from capture to finished mask.
        """
        seconds = (self._newest_ns - self._started_ns) / 1e9 if self._started_ns is not None and self._frames else 0.0
        return {
            "frames": self._frames,
            "captured": self._mailbox.captured,
            "dropped": self._mailbox.dropped,
            "seconds": seconds,
            "fps": self._frames / seconds if seconds > 0 else 0.0,
            "policy": self.policy,
            "provider": self.segmenter.provider,
            "source": self.source.name,
            "stages": self._times.summary(),
        }

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        if self._max_frames is not None and self._frames >= self._max_frames:
            self._stop.set()
            self._mailbox.close()
            raise StopIteration
        if self._closed:
            raise StopIteration
        self._start()
        captured = self._wait_for_frame()
        if captured is None:
            raise StopIteration
        result = self._segment(*captured)
        spent_ms = dict(result.timing)
        for sink in self._sinks:
            spent_ms.update(sink.write(result))
        self._times.add(spent_ms)
        return result

    def close(self) -> None:
        """Stop reading, close the source, the sinks and what :meth:`open` opened. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._mailbox.close()
        with contextlib.ExitStack() as stack:  # each is closed even if another one's close() fails
            if self._own_segmenter:
                stack.callback(self.segmenter.close)
            for sink in self._sinks:
                stack.callback(sink.close)
            self._stop_reader()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _start(self) -> None:
        if self._reader is not None:
            return
        self.segmenter.warm_up()
        self._started_ns = self._clock()
        # A daemon, because a reader stuck inside a camera driver must not keep the program from ending.
        self._reader = threading.Thread(target=self._read, name="rtda-capture", daemon=True)
        self._reader.start()

    def _wait_for_frame(self) -> Optional[Tuple[Frame, float]]:
        try:
            taken = self._mailbox.take(self._timeout_s + _GRACE_S)
        except TimeoutError as err:
            kind = CameraError if self.source.live else SourceError
            raise kind(
                f"{self.source.name} gave no frame for {self._timeout_s:g} s",
                hint="check the camera or the disk, then start again",
            ) from err
        if taken is None:
            return None
        frame, capture_ms, self._dropped = taken
        return frame, capture_ms

    def _segment(self, frame: Frame, capture_ms: float) -> Result:
        result = self.segmenter.segment(frame.image, captured_ns=frame.captured_ns, sequence=frame.sequence)
        self._newest_ns = self._clock()
        self._frames += 1
        age_ms = (self._newest_ns - frame.captured_ns) / 1e6
        return Result(
            frame=result.frame,
            mask=result.mask,
            captured_ns=result.captured_ns,
            sequence=result.sequence,
            dropped=self._dropped,
            timing={"capture": capture_ms, **result.timing, "age": age_ms},
            spec=result.spec,
        )

    def _read(self) -> None:
        """Body of the reader thread."""
        _name_thread("rtda-capture")
        try:
            self._read_until_stopped()
            self._mailbox.end()
        except Exception as err:  # whatever it is, it belongs to the thread that iterates
            self._mailbox.end(err)
        finally:
            self.source.close()

    def _read_until_stopped(self) -> None:
        while not self._stop.is_set():
            start = self._clock()
            frame = self.source.read(self._timeout_s)
            if frame is None:
                return
            self._mailbox.put(frame, (self._clock() - start) / 1e6)

    def _stop_reader(self) -> None:
        if self._reader is None:
            self.source.close()
            return
        self._reader.join(_STOP_S)
        if self._reader.is_alive():
            _log.warning("%s does not return from its driver; its reader ends when it does", self.source.name)


def _check(policy: Optional[str], max_frames: Optional[int], timeout_s: float) -> None:
    if policy is not None and policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}", hint=f"known: {', '.join(POLICIES)}")
    if max_frames is not None and max_frames < 1:
        raise ConfigError(f"max_frames must be at least 1, got {max_frames}", hint="leave it out for all frames")
    if not timeout_s > 0:
        raise ConfigError(f"timeout must be positive, got {timeout_s:g}", hint="try 5")


class _Mailbox:
    """Between the reader and the loop: a bounded queue, or one slot in which the newest frame wins.

    Every wait has a limit, and every frame put in is either taken, replaced (and counted), or left when it is closed.
    """

    def __init__(self, capacity: int, *, replace: bool) -> None:
        self.captured = 0
        self.dropped = 0
        self._capacity = capacity
        self._replace = replace
        self._items: Deque[Tuple[Frame, float]] = collections.deque()
        self._changed = threading.Condition()
        self._error: Optional[Exception] = None
        self._ended = False
        self._closed = False

    def put(self, frame: Frame, capture_ms: float) -> None:
        """Leave a frame; waits for room unless the newest wins. Does nothing once closed."""
        with self._changed:
            while len(self._items) >= self._capacity and not self._replace and not self._closed:
                self._changed.wait(_WAKE_S)
            if self._closed:
                return
            self.captured += 1
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append((frame, capture_ms))
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Optional[Tuple[Frame, float, int]]:
        """The next frame, its capture time in ms and the frames dropped so far; None at the end.

        Raises:
            TimeoutError: If there was none for ``timeout_s``.
            Exception: What the reader ended with, once its frames are taken.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                if self._error is not None:
                    raise self._error
                if self._ended or self._closed:
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._changed.wait(min(left, _WAKE_S))
            frame, capture_ms = self._items.popleft()
            self._changed.notify_all()
            return frame, capture_ms, self.dropped

    def end(self, error: Optional[Exception] = None) -> None:
        """No more frames will come; ``error`` is why, if it is one."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody takes frames any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def _name_thread(name: str) -> None:
    """Show the thread under its name in ``top -H``; Python tells the kernel only from 3.14 on."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15], encoding="ascii")
