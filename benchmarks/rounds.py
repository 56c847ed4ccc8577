"""What the benchmarks share: ways that run in turns, ratios within a round, and a record of the machine meanwhile."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, TypeVar

from rtda_runtime.engines.kinds import libraries
from rtda_runtime.machine.conditions import ConditionsMonitor
from rtda_runtime.machine.environment import environment

Name = TypeVar("Name")
Answer = TypeVar("Answer")


def in_turns(
    ways: Mapping[Name, Callable[[int], Answer]], rounds: int, *, warm_up: int = 1, pause_s: float = 0.0
) -> Dict[Name, List[Answer]]:
    """Run all ways once a round, forwards and backwards in turn, so that what else the machine does falls on all.

    Args:
        ways: Each is given the number of the round.
        rounds: How often each runs and counts.
        warm_up: Runs of each before that do not count: memory is allocated and weights are packed then.
        pause_s: Before each run; longer than the threads of the library before wait busily for more work.

    Returns:
        What each way gave, round by round.
    """
    names = list(ways)
    for name in names * warm_up:
        ways[name](0)
    answers: Dict[Name, List[Answer]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            time.sleep(pause_s)
            answers[name].append(ways[name](number))
    return answers


def timed(
    way: Callable[[int], Any], clock: Callable[[], float] = time.perf_counter, inputs: Sequence[Any] = ()
) -> Callable[[int], float]:
    """A way that gives its milliseconds; with ``inputs`` it is handed one of them in turn instead of the number."""

    def run(number: int) -> float:
        given = inputs[number % len(inputs)] if inputs else number
        start = clock()
        way(given)
        return 1e3 * (clock() - start)

    return run


def middle(values: Sequence[float], name: str = "ratio") -> Dict[str, float]:
    """The median under ``name``, and the ends of the middle half as ``low`` and ``high``."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {name: statistics.median(ordered), "low": ordered[quarter], "high": ordered[-1 - quarter]}


def times_as_fast(times: Sequence[float], base: Sequence[float]) -> Dict[str, float]:
    """Median ``ms``, and ``ratio`` of each round: the base's time over this one's."""
    return {"ms": statistics.median(times), **middle([other / own for own, other in zip(times, base)])}


def times_as_long(times: Sequence[float], base: Sequence[float]) -> Dict[str, float]:
    """Median ``ms``, and ``ratio`` of each round: this time over the base's."""
    return {"ms": statistics.median(times), **middle([own / other for own, other in zip(times, base)])}


@contextlib.contextmanager
def recorded() -> Iterator[Dict[str, Any]]:
    """A record for what a benchmark prints as JSON; after the block it has the machine's ``conditions`` meanwhile, and
    its ``environment`` with the versions of the libraries that were loaded by then.
    """
    record: Dict[str, Any] = {}
    with ConditionsMonitor() as monitor:
        yield record
    record.update(conditions=monitor.conditions.to_dict(), environment=environment(libraries=libraries()).to_dict())


def machine_text(record: Mapping[str, Any]) -> str:
    """Of what :func:`recorded` gave: the CPU, its cores, and how many of them other programs took."""
    machine, others = record["environment"], record["conditions"]["other_cores"]
    return f"{machine['cpu']}, {machine['cores']} cores, others took {others} cores meanwhile"
