"""Times of several models taken in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import random
import statistics
import time
from typing import Callable, List, NamedTuple, Sequence

__all__ = ["Timed", "in_turns"]

_TURN_S = 0.2  # of each model in each round, at least one run
_SETTLE_S = 0.01  # between models: a library's threads spin for a while


class Timed(NamedTuple):
    """Milliseconds of one run.

    Attributes:
        ms: Median of the rounds' medians.
        low_ms: The smallest of them.
        high_ms: The largest.
    """

    ms: float
    low_ms: float
    high_ms: float


def in_turns(
    runs: Sequence[Callable[[], object]],
    *,
    rounds: int = 7,
    turn_s: float = _TURN_S,
    tell: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> List[Timed]:
    """Time each of ``runs``; every round takes them all, in another order.

    Args:
        runs: Each makes one mask. Each is run once before, to warm up.
        rounds: How often each has its turn.
        turn_s: A turn ends with the run that passes this, seconds.
        tell: Called with (rounds done, rounds).
        clock: Seconds.
        sleep: Waits as long on that clock.
    """
    for run in runs:
        run()
    medians: List[List[float]] = [[] for _ in runs]
    order, shuffle = list(range(len(runs))), random.Random(0).shuffle
    for done in range(rounds):
        shuffle(order)
        for place in order:
            sleep(_SETTLE_S)
            medians[place].append(_turn(runs[place], turn_s, clock))
        tell(done + 1, rounds)
    return [Timed(statistics.median(values), min(values), max(values)) for values in medians]


def _turn(run: Callable[[], object], turn_s: float, clock: Callable[[], float]) -> float:
    """Median of the runs of a turn, ms."""
    times: List[float] = []
    while sum(times) < turn_s:
        start = clock()
        run()
        times.append(max(clock() - start, 1e-9))
    return 1e3 * statistics.median(times)
