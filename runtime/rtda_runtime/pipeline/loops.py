"""Results for loops over a pipeline: plain ones, and those of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from typing import AsyncIterator, Callable, Optional

from rtda_runtime.pipeline.reader import AHEAD, Flow
from rtda_runtime.result import Result
from rtda_runtime.threads.mailbox import WAKE_S, Mailbox

__all__ = ["AsyncLoop", "Loops"]


class Loops:
    """The results that loops take, in order; counts them for ``max_frames``.

    While no loop runs results pass by. Under ``newest`` a newer one takes the place of one that waits (unless each
    result was asked for), else :meth:`put` waits for the loop.

    Args:
        flow: Ended when ``max_frames`` results were taken; its error is raised after the results before it.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._newest_only = flow.newest and not flow.options.each_result
        self._results: Mailbox[Result] = Mailbox(1 if flow.newest else AHEAD, replace=self._newest_only)
        self._results.pause()
        self._lock = threading.RLock()  # a loop may be left by the garbage collector, at any place
        self._running = 0
        self._counted = 0
        self._enough = False

    @property
    def skipped(self) -> int:
        """Results that gave way to a newer one."""
        return self._results.dropped

    def put(self, result: Result) -> bool:
        """Leave a result for the loops; tells whether there shall be more."""
        looped = self._results.put(result)
        return True if looped and self._newest_only else self._count()

    def end(self) -> None:
        """No result comes any more."""
        self._results.end()

    def close(self) -> None:
        """Take no results any more, and drop those that wait."""
        self._results.close()

    def listen(self, on_change: Optional[Callable[[], None]]) -> None:
        """Call this, from any thread, when there may be something to take; None: no more."""
        self._results.on_change = on_change

    def begin(self) -> None:
        """A loop begins."""
        with self._lock:
            self._running += 1
            self._results.resume()

    def leave(self) -> None:
        """A loop is left."""
        with self._lock:
            self._running -= 1
            self.pause_unless_running()

    def leave_for_now(self) -> None:
        """A single result was taken; those to come are kept for the next call."""
        with self._lock:
            self._running -= 1

    def pause_unless_running(self) -> None:
        """Let results pass by unless a loop runs, so that the network does not wait."""
        with self._lock:
            if not self._running:
                self._results.pause()

    def take(self) -> Optional[Result]:
        """The next result, however long it takes; None at the end."""
        while True:
            with contextlib.suppress(TimeoutError):
                return self.take_now(WAKE_S)

    def take_now(self, timeout_s: float = 0.0) -> Optional[Result]:
        """The next result; None at the end.

        Raises:
            TimeoutError: If there is none yet.
            BaseException: What the pipeline ended with.
        """
        taken = self._results.take(timeout_s)
        if taken is None:
            if self._flow.error is not None and not self._enough and not self._results.closed:
                raise self._flow.error
            return None
        if self._newest_only and not self._count():
            self._enough = True
            self._flow.end()
            self._results.end()
            self._results.pause()  # a newer one is not given any more
        result, skipped = taken
        return dataclasses.replace(result, dropped=result.dropped + skipped) if skipped else result

    def _count(self) -> bool:
        """Count one for ``max_frames``; tells whether there shall be more."""
        with self._lock:
            self._counted += 1
            most = self._flow.options.max_frames
            return most is None or self._counted < most


class AsyncLoop(AsyncIterator[Result]):
    """Results for an event loop. Not an async generator: of one that is left, the end waits for a turn of the loop.

    Args:
        loops: What the results are taken from.
        start: Starts the pipeline.
    """

    def __init__(self, loops: Loops, start: Callable[[], None]) -> None:
        self._loops = loops
        self._start = start
        self._changed: Optional[asyncio.Event] = None  # made in the loop it belongs to
        self._left = False

    def __aiter__(self) -> AsyncLoop:
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
                    result = self._loops.take_now()
                except TimeoutError:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), WAKE_S)
                    continue
                if result is None:
                    raise StopAsyncIteration
                return result
        except Exception:  # the end, or the error; after a mere cancellation the loop may go on
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

        self._loops.listen(wake)
        self._loops.begin()
        self._start()
        return changed

    def _leave(self) -> None:
        if self._changed is not None and not self._left:
            self._loops.listen(None)
            self._loops.leave()
        self._left = True
