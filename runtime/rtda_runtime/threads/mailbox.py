"""Between two threads: a bounded queue, or a slot in which the newest wins."""

from __future__ import annotations

import collections
import threading
import time
from typing import Callable, Deque, Generic, Optional, Tuple, TypeVar

__all__ = ["WAKE_S", "Mailbox"]

WAKE_S = 0.2  # longest wait between two looks at whether to stop

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """What one thread leaves for another.

    Every wait has a limit, and everything put in is either taken, replaced (and counted), or left when it is closed.

    Args:
        capacity: Items it holds.
        replace: Where it is full, the oldest gives way and counts as dropped. False: :meth:`put` waits for room.

    Attributes:
        arrived: Items put in so far.
        dropped: Of those, the ones that gave way to a newer one, or were not used.
        closed: :meth:`close` was called.
        on_change: Called without arguments after every change, from the thread that made it.
    """

    def __init__(self, capacity: int, *, replace: bool) -> None:
        self.arrived = 0
        self.dropped = 0
        self.closed = False
        self.on_change: Optional[Callable[[], None]] = None
        self._capacity = capacity
        self._replace = replace
        self._items: Deque[_Item] = collections.deque()
        self._changed = threading.Condition()
        self._error: Optional[BaseException] = None
        self._ended = False
        self._paused = False

    def put(self, item: _Item) -> bool:
        """Leave an item; waits for room unless the newest wins.

        False, and nothing is done: paused, ended or closed.
        """
        with self._changed:
            while len(self._items) >= self._capacity and not self._replace and not self._refuses():
                self._changed.wait(WAKE_S)
            if self._refuses():
                return False
            self.arrived += 1
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
        self._tell()
        return True

    def pass_over(self) -> None:
        """Count an item that arrived and is not put in."""
        with self._changed:
            self.arrived += 1
            self.dropped += 1

    def take(self, timeout_s: float) -> Optional[Tuple[_Item, int]]:
        """The next item, and how many were dropped until now; None at the end.

        Raises:
            TimeoutError: If there was none for ``timeout_s``; 0: none now.
            BaseException: What it was ended with, once the items before are taken.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                if self._error is not None and not self.closed:
                    raise self._error
                if self._ended or self.closed:
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._changed.wait(min(left, WAKE_S))
            item = self._items.popleft()
            self._changed.notify_all()
            return item, self.dropped

    def end(self, error: Optional[BaseException] = None) -> None:
        """Nothing more will come; ``error`` is why, if it is one. What is there can still be taken."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
            self._changed.notify_all()
        self._tell()

    def count_dropped(self) -> None:
        """Count an item that was taken and not used."""
        with self._changed:
            self.dropped += 1

    def pause(self) -> None:
        """Refuse items until :meth:`resume`; those that are there count as dropped."""
        with self._changed:
            self._paused = True
            self.dropped += len(self._items)
            self._items.clear()
            self._changed.notify_all()

    def resume(self) -> None:
        """Items are taken from now on."""
        with self._changed:
            self._paused = False

    def close(self) -> None:
        """Refuse items for good, and forget those that are there."""
        with self._changed:
            self.closed = True
            self._items.clear()
            self._changed.notify_all()
        self._tell()

    def _refuses(self) -> bool:
        return self.closed or self._ended or self._paused

    def _tell(self) -> None:
        told = self.on_change
        if told is not None:
            told()
