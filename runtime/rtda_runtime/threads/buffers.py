"""Memory of frames and masks that is reused as soon as no other object refers to it.

A frame of 1280x720 is 2.8 MB: allocated anew thirty times a second, it costs page faults and makes memory grow in
jumps. A pool keeps the arrays that it gave out and looks at Python's own reference counts; an array that only the
pool refers to is given out again. So a result stays valid for as long as it, or any view of it, is referred to.
"""

from __future__ import annotations

import collections
import sys
import threading
from typing import Any, List, Sequence, Tuple

import numpy as np

__all__ = ["BufferPool"]

_MOST_BUFFERS = 64  # of one shape; beyond, the oldest is left to its holder and its memory goes when he lets go
_MOST_SHAPES = 4  # a stream that changes size leaves the buffers of its old size behind


class BufferPool:
    """Arrays for frames and masks. Any thread may call it; holders may let go in any thread.

    ::

        pool = BufferPool()
        mask = pool.take((720, 1280))        # uint8, whatever was in it before
        del mask                             # free: one of the next calls gives the same memory

    Not seen is memory that is used without a reference to its array, such as a bare address given to a C library.

    Args:
        most: Arrays of one shape that are remembered.
    """

    def __init__(self, most: int = _MOST_BUFFERS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._shapes: collections.OrderedDict[Tuple[Any, ...], List[np.ndarray]] = collections.OrderedDict()

    def take(self, shape: Sequence[int], dtype: Any = np.uint8) -> np.ndarray:
        """An array that is not in use, C-contiguous, its content undefined; a new one only where all are in use."""
        key = (np.dtype(dtype), *shape)
        with self._lock:
            buffers = self._of(key)
            for index in range(len(buffers)):
                if _references(buffers, index) <= _FREE:
                    return buffers[index]
            if len(buffers) >= self._most:
                del buffers[0]
            buffers.append(np.empty(tuple(shape), dtype))
            return buffers[-1]

    def _of(self, key: Tuple[Any, ...]) -> List[np.ndarray]:
        if key not in self._shapes:
            self._shapes[key] = []
            if len(self._shapes) > _MOST_SHAPES:
                self._shapes.popitem(last=False)
        self._shapes.move_to_end(key)
        return self._shapes[key]


def _references(buffers: List[np.ndarray], index: int) -> int:
    """Who refers to an array: its list, the argument of this very call, and everybody else.

    A view refers to the array that owns its memory, however many views lie between, so views count too.
    """
    return sys.getrefcount(buffers[index])


_FREE = _references([np.empty(1)], 0)  # measured, because interpreters count the argument differently
