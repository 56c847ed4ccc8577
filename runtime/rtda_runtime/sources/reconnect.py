"""Opens a lost camera again until it is back.

States: ``live``; ``stale`` (no frame for three periods, at least half a second); ``lost`` (closed, being opened again
with a growing, capped delay). Meanwhile no frames are given, neither black nor old ones.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import threading
import time
from typing import Callable, Deque, Mapping, Optional, Tuple

from rtda_deploy.errors import CameraError
from rtda_runtime.sources.base import LIVE, LOST, STALE, Frame, RefusedError, Source, stale_after_s
from rtda_runtime.threads.named import NamedThread

__all__ = ["FIRST_DELAY_S", "MAX_DELAY_S", "ReconnectingSource", "delay_s"]

_log = logging.getLogger(__name__)

FIRST_DELAY_S, MAX_DELAY_S = 0.25, 5.0  # before the first, and at most before any, new attempt
_STOP_S = 0.8  # close() waits so long for a thread that is stuck inside a driver
_WAKE_S = 0.2  # longest wait between two looks at what changed
_FORGETS = 0.9  # how much of the mean period one more frame leaves


def delay_s(attempt: int, first_s: float = FIRST_DELAY_S, most_s: float = MAX_DELAY_S) -> float:
    """Seconds to wait before attempt 0, 1, 2 ...: doubled each time, up to a cap."""
    return float(min(most_s, first_s * 2 ** min(attempt, 30)))


class ReconnectingSource(Source):
    """Wraps what ``open`` gives, in a thread of its own (``rtda-camera``), and opens it again when it is lost.

    :meth:`read` waits as long as it takes; it raises when the source is closed, or for an error that stays the same
    however often it is tried (:class:`RefusedError`, such as a wrong password). :meth:`close` and :meth:`interrupt`
    end every wait at once, even while a driver does not return: its thread ends when it does.

    Frames are handed over one at a time. Until the first :meth:`read` the newest one waits and the others are dropped,
    so that a stream does not pile up while a network is loaded.

    Args:
        open: Opens the source; its first failure is raised here, later ones are tried again.
        first: What it gave already; None: it is called now.
        drain: False: keep the frames before the first read, as a plain source does.
        wait: Waits so many seconds; True at once when the source is being closed.

    Raises:
        RtdaError: Everything ``open`` raises.
    """

    live = True

    def __init__(
        self,
        open: Callable[[], Source],
        *,
        first: Optional[Source] = None,
        drain: bool = True,
        stale_after_s: Optional[float] = None,
        timeout_s: float = 5.0,
        wait: Optional[Callable[[float], bool]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._wait = wait or self._closing.wait
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._timeout_s = timeout_s
        self._taking = not drain
        self._slot: Optional[Frame] = None
        self._ended = False
        self._error: Optional[Exception] = None
        self._state = LIVE
        self._losses = 0
        self._left_out = (0, 0)  # damaged and outdated, of the sources before this one
        self._news: Deque[Tuple[str, str]] = collections.deque(maxlen=100)
        self._period_s: Optional[float] = None
        self._back = ""
        self._next = 0
        self._source = first if first is not None else open()
        self.name = self._source.name
        self._describe(self._source)
        self._last_s = clock()
        self._thread = NamedThread("rtda-camera", self._run)
        self._thread.start()

    @property
    def state(self) -> str:
        return self._state

    @property
    def losses(self) -> int:
        return self._losses

    @property
    def damaged(self) -> int:
        return self._left_out[0] + self._source.damaged

    @property
    def outdated(self) -> int:
        return self._left_out[1] + self._source.outdated

    @property
    def stale_after_s(self) -> float:
        """How long no frame may come before the source is stale; by its rate as declared and as seen, the slower."""
        if self._stale_after_s is not None:
            return self._stale_after_s
        periods_s = [1 / self.fps] if self.fps else []
        periods_s += [self._period_s] if self._period_s is not None else []
        return stale_after_s(periods_s)

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        began_s = self._clock()
        while True:
            with self._changed:
                self._timeout_s, self._taking = timeout_s, True
                frame = self._take()
                if frame is None and not self._news and not self._ended:
                    self._changed.wait(_WAKE_S)
                    self._look_at_age(began_s)
                    frame = self._take()
                news, self._news = list(self._news), collections.deque(maxlen=100)
                ended, error = self._ended, self._error
            for state, sentence in news:
                if self.on_state is not None:
                    self.on_state(state, sentence)
            if frame is not None:
                return frame
            if self._closing.is_set():
                raise self._closed_error()
            if error is not None:
                raise error
            if ended:
                return None

    def interrupt(self) -> None:
        self._closing.set()
        with self._changed:
            self._slot = None
            self._changed.notify_all()
        self._source.interrupt()  # after _closing is set: one that is opened meanwhile is not read any more

    def close(self) -> None:
        self.interrupt()
        self._thread.join_until(time.monotonic() + _STOP_S)

    def _take(self) -> Optional[Frame]:
        frame, self._slot = self._slot, None
        if frame is not None:
            self._changed.notify_all()
        return frame

    def _look_at_age(self, began_s: float) -> None:
        """Tell that the source is stale if nothing came for too long while :meth:`read` waited."""
        waited_s = self._clock() - max(self._last_s, began_s)
        if self._state == LIVE and self._slot is None and not self._ended and waited_s > self.stale_after_s:
            self._tell(STALE, f"{self.name} gave no frame for {waited_s:.1f} s")

    def _tell(self, state: str, sentence: str) -> None:
        self._state = state
        self._news.append((state, sentence))
        self._changed.notify_all()

    # What follows happens in the thread that owns the wrapped source.

    def _run(self) -> None:
        try:
            self._read_on()
        except Exception as err:  # read() raises it, in the caller's thread
            self._error = err
        finally:
            self._source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_on(self) -> None:
        base, attempt, since_s = 0, 0, float("-inf")
        while not self._closing.is_set():
            try:
                frame = self._source.read(self._timeout_s)
            except RefusedError:
                raise
            except CameraError as err:
                if self._closing.is_set():
                    return
                # The delay grows for a camera that breaks off soon after each attempt.
                steady = self._clock() - since_s > delay_s(attempt)
                attempt = self._open_again(err, 0 if steady else attempt + 1)
                base, since_s = self._next, self._clock()
                continue
            if frame is None:
                return
            self._deliver(dataclasses.replace(frame, sequence=frame.sequence + base))

    def _deliver(self, frame: Frame) -> None:
        with self._changed:
            now_s = self._clock()
            if self._state != LOST and self._next:  # what makes it stale may be its own slow pace
                step_s = min(now_s - self._last_s, self._timeout_s)
                self._period_s = _FORGETS * (self._period_s or step_s) + (1 - _FORGETS) * step_s
            self._last_s, self._next = now_s, frame.sequence + 1
            if self._state != LIVE:
                self._tell(LIVE, self._back or f"{self.name} gives frames again")
                self._back = ""
            if not self._taking:
                self._slot = None
            while self._slot is not None and not self._closing.is_set():
                self._changed.wait(_WAKE_S)
            self._slot = None if self._closing.is_set() else frame
            self._changed.notify_all()

    def _open_again(self, err: CameraError, attempt: int) -> int:
        """Close, wait, open, until it is back or :meth:`close` is called; returns the number of the last attempt."""
        began_s = self._clock()
        self._note_loss(f"{err.message}; trying again in {delay_s(attempt):g} s")
        self._source.close()
        said = ""
        while not self._wait(delay_s(attempt)) and not self._closing.is_set():
            try:
                opened = self._open()
                self._left_out, self._source = (self.damaged, self.outdated), opened
            except RefusedError:
                raise
            except CameraError as failed:
                if failed.message != said:
                    _log.info("%s; trying again", failed.message)
                said = failed.message
                attempt += 1
                continue
            if self._closing.is_set():
                break  # _run() closes what was just opened
            self._describe(self._source)
            self._back = f"{self.name} is back after {self._clock() - began_s:.1f} s"
            _log.info("%s: first good frame", self._back)
            break
        return attempt

    def _note_loss(self, sentence: str) -> None:
        _log.warning("%s", sentence)
        with self._changed:
            self._losses += 1
            self._tell(LOST, sentence)

    def _describe(self, source: Source) -> None:
        """Take over its description; a camera that came back may have other settings."""
        self.fps, self.size_wh, self.num_frames = source.fps, source.size_wh, source.num_frames
        self.clock, self.stamp = source.clock, source.stamp
        self.asked: Mapping[str, str] = source.asked
        self.granted: Mapping[str, str] = source.granted
