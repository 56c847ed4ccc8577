"""A lock that is given to threads in the order in which they asked for it.

Python's own lock makes no such promise: a thread that releases it and asks again at once may get it again. Where
several cameras share one network, some of them would get fewer frames.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from types import TracebackType
from typing import Deque, Dict, Iterator, List, Optional, Type

from rtda_runtime.threads.mailbox import WAKE_S

__all__ = ["FairLock", "GivenUpError", "waits_until"]


class _Own(threading.local):
    """What a thread said about itself: what ends its waits."""

    stop: Optional[threading.Event] = None


_own = _Own()


class GivenUpError(Exception):
    """A thread stopped waiting for its turn."""


@contextlib.contextmanager
def waits_until(stop: threading.Event) -> Iterator[None]:
    """In the block a wait for a turn ends once ``stop`` is set, by :class:`GivenUpError`."""
    _own.stop = stop
    try:
        yield
    finally:
        _own.stop = None


class FairLock:
    """``with lock as place:`` waits for one of the places 0, 1, 2 ...; the thread that waits longest gets the next one.

    A thread holds one place at most. One that asks again while it holds one lost track of it by an exception, as Ctrl-C
    may cause between two lines, and gets the same one.

    Args:
        places: How many threads go on at once.
    """

    def __init__(self, places: int = 1) -> None:
        self._lock = threading.Lock()
        self._free: List[int] = list(range(places))[::-1]
        self._waiting: Deque[_Waiter] = collections.deque()  # never with a free place beside it
        self._held: Dict[int, int] = {}  # by thread
        self._keeping: Dict[int, int] = {}  # blocks of ``kept`` by thread; each thread changes its own count

    @contextlib.contextmanager
    def kept(self) -> Iterator[int]:
        """Keep a place for the block: ``with lock`` inside of it, by this thread, gets that one at once.

        Blocks may be nested, and those of several objects mixed; the end of the outermost gives the place back.
        """
        thread = threading.get_ident()
        with self as place:
            outer = self._keeping.get(thread, 0)
            try:
                self._keeping[thread] = outer + 1
                yield place
            finally:
                if outer:
                    self._keeping[thread] = outer
                else:
                    self._keeping.pop(thread, None)

    @property
    def free(self) -> List[int]:
        """Places that no thread holds."""
        return sorted(self._free)

    @property
    def waiting(self) -> int:
        """Threads that wait for a place."""
        return len(self._waiting)

    @property
    def is_kept(self) -> bool:
        """Whether this thread keeps a place."""
        return threading.get_ident() in self._keeping

    def __enter__(self) -> int:
        waiter = _Waiter(threading.get_ident())
        with self._lock:
            if waiter.thread not in self._held:
                self._waiting.append(waiter)
                if self._free:
                    self._give(self._free.pop())
            if waiter.thread in self._held:
                return self._held[waiter.thread]
        try:
            while not waiter.granted.wait(WAKE_S):
                if waiter.stop is not None and waiter.stop.is_set():
                    raise GivenUpError
        except BaseException:
            self._withdraw(waiter)
            raise
        return self._held[waiter.thread]

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self.is_kept:
            return
        with self._lock:
            self._give(self._held.pop(threading.get_ident()))

    def _give(self, place: int) -> None:
        if not self._waiting:
            self._free.append(place)
            return
        waiter = self._waiting.popleft()
        self._held[waiter.thread] = place
        waiter.granted.set()

    def _withdraw(self, waiter: _Waiter) -> None:
        """Wait no longer; a place that came meanwhile goes to the next thread."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._give(self._held.pop(waiter.thread))


class _Waiter:
    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.stop: Optional[threading.Event] = _own.stop
        self.granted = threading.Event()
