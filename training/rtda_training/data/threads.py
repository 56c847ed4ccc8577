"""Work on every picture of a set, several at a time, results in order.

Threads are enough: OpenCV gives the interpreter free while it decodes.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, Iterator, TypeVar

__all__ = ["in_order"]

_AHEAD = 3  # results that each worker may be ahead, so that a Ctrl-C waits for few
_Result = TypeVar("_Result")


def in_order(work: Callable[[int], _Result], count: int, workers: int = 0) -> Iterator[_Result]:
    """``work(0)``, ``work(1)``, … ``work(count - 1)``, by ``workers`` threads (0: one per core that is allowed)."""
    workers = min(workers or len(os.sched_getaffinity(0)), count)
    if workers < 2:
        for index in range(count):
            yield work(index)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: Deque[Future[_Result]] = deque()
        for index in range(count):
            waiting.append(pool.submit(work, index))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
