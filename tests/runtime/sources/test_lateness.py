"""Frames that are old when they come: by a script of arrivals, on a clock of numbers."""

from __future__ import annotations

import random
from typing import Iterator, List, NamedTuple, Optional

import pytest

from rtda_runtime.sources.lateness import Lateness

MS = 1_000_000


class Arrival(NamedTuple):
    """One frame; all in milliseconds."""

    filmed: float
    arrived: float
    waited: float


def _camera(fps: float, seconds: float, *, began: float = 0.0, jitter: float = 0.0) -> Iterator[Arrival]:
    """Frames that come as they are filmed, to a reader that waits for each."""
    chance, before = random.Random(0), began
    for number in range(round(fps * seconds)):
        filmed = began + 1000 * number / fps
        arrived = max(before + 0.1, filmed + chance.uniform(0, jitter) * 1000 / fps)
        yield Arrival(filmed, arrived, arrived - before)
        before = arrived


def _old(arrivals: List[Arrival], *, timed: bool) -> List[bool]:
    return [lag is None for lag in _lags(arrivals, timed=timed)]


def _lags(arrivals: List[Arrival], *, timed: bool) -> List[Optional[float]]:
    """Milliseconds that each frame lags behind; None: it is old."""
    lateness, lags = Lateness(), []
    for one in arrivals:
        filmed_ns = round(one.filmed * MS) if timed else None
        old = lateness.is_old(round(one.arrived * MS), round(one.waited * MS), filmed_ns)
        lags.append(None if old else lateness.lag_ns / MS)
    return lags


def _with_stall(fps: float, stall_s: float, *, queue_s: float, each_ms: float) -> List[Arrival]:
    """Two seconds of a camera, a stall of the reader inside its wait, the queue, and two more seconds.

    Args:
        queue_s: How much of what was filmed in the stall fits into the buffers; what is filmed then is lost.
        each_ms: How fast the queue is read.
    """
    arrivals = list(_camera(fps, 2.0))
    step, awake = 1000 / fps, arrivals[-1].arrived + 1000 * stall_s
    for number in range(round(fps * queue_s)):
        arrived = awake + each_ms * number
        waited = 1000 * stall_s if not number else each_ms / 2
        arrivals.append(Arrival(2000 + step * number, arrived, waited))
    began = arrivals[-1].arrived + step
    began += -began % step  # the camera's own beat
    return arrivals + list(_camera(fps, 2.0, began=began))


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("fps", [1.0, 20.0, 120.0])
def test_a_camera_that_is_read_in_time_has_no_old_frames(fps: float, jitter: float, timed: bool) -> None:
    assert not any(_old(list(_camera(fps, 30.0, jitter=jitter)), timed=timed))


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("queue_s", [33.0, 26.5])
def test_after_a_stall_the_queue_is_old_and_what_comes_at_the_cameras_pace_is_new(queue_s: float, timed: bool) -> None:
    arrivals = _with_stall(20.0, 33.0, queue_s=queue_s, each_ms=3.8)
    old = _old(arrivals, timed=timed)
    queue = slice(40, 40 + round(20 * queue_s))
    proofs = 0 if timed else 8  # of what has no times, 0.4 s must come at the camera's pace
    assert not any(old[: queue.start]) and not any(old[queue.stop + proofs :])
    assert sum(old[queue]) >= len(arrivals[queue]) - 8
    for one, lag in zip(arrivals, _lags(arrivals, timed=timed)):
        if lag is not None:
            age = one.arrived - one.filmed
            assert age <= (250 if timed else 500) + 50, "none is older than was allowed"
            assert lag == pytest.approx(age, abs=60), "and its age is told"


@pytest.mark.parametrize("timed", [True, False])
def test_a_reader_slower_than_the_camera_gets_new_frames(timed: bool) -> None:
    """10 frames a second are looked at, 20 are filmed; what is there is read at once."""
    lateness, now, old, ages = Lateness(), 0.0, 0, []
    before: Optional[float] = None
    for number in range(400):
        filmed = 50.0 * number
        asked = now
        now = max(now + 0.2, filmed)
        is_old = lateness.is_old(round(now * MS), round((now - asked) * MS), round(filmed * MS) if timed else None)
        old += is_old
        if not is_old:
            ages.append(now - filmed)
            now += 100.0 if number > 20 else 0.0  # slow from here on
        before = now
    assert before is not None and max(ages) <= (400 if timed else 550)
    assert 150 < old < 210


@pytest.mark.parametrize("queue_s", [33.0, 26.5])
@pytest.mark.parametrize("timed", [True, False])
def test_a_queue_that_a_busy_machine_reads_unevenly_stays_a_queue(queue_s: float, timed: bool) -> None:
    chance = random.Random(1)
    arrivals, late = [], 0.0
    for place, one in enumerate(_with_stall(20.0, 33.0, queue_s=queue_s, each_ms=3.8)):
        pause = chance.choice([0.0] * 9 + [45.0, 60.0]) if 40 < place < 40 + 20 * queue_s else 0.0
        late += pause
        arrivals.append(one._replace(arrived=one.arrived + late, waited=one.waited + pause, filmed=one.filmed))
    after = 40 + round(20 * queue_s)
    arrivals = arrivals[:after] + [one._replace(filmed=one.filmed + late) for one in arrivals[after:]]
    old = _old(arrivals, timed=timed)
    aged = [one.arrived - one.filmed for one, is_old in zip(arrivals, old) if not is_old]
    assert max(aged) <= (250 if timed else 500) + 50 and not any(old[after + 8 :])


def test_a_camera_that_was_silent_loses_less_than_half_a_second_without_times_and_nothing_with_them() -> None:
    before, after = list(_camera(20.0, 2.0)), list(_camera(20.0, 2.0, began=12_000.0))
    after[0] = after[0]._replace(waited=10_000.0)
    assert sum(_old(before + after, timed=True)) == 0
    assert [place for place, old in enumerate(_old(before + after, timed=False)) if old] == list(range(40, 48))


@pytest.mark.parametrize(("timed", "most"), [(True, 0), (False, 6)])
def test_a_camera_that_becomes_slower_is_known_again_soon(timed: bool, most: int) -> None:
    before, after = list(_camera(20.0, 2.0)), list(_camera(2.0, 20.0, began=2450.0))
    after[0] = after[0]._replace(waited=500.0)
    old = _old(before + after, timed=timed)
    assert sum(old) <= most and not any(old[50:])


@pytest.mark.parametrize("timed", [True, False])
def test_a_camera_that_becomes_faster_loses_nothing(timed: bool) -> None:
    before, after = list(_camera(5.0, 4.0)), list(_camera(25.0, 4.0, began=4000.0))
    after[0] = after[0]._replace(waited=200.0)
    assert not any(_old(before + after, timed=timed))


def test_times_that_do_not_go_as_the_clock_does_are_no_reason_to_drop() -> None:
    """Cheap cameras stamp 25 frames a second whatever they film, and set their clocks back."""
    arrivals = [one._replace(filmed=40.0 * number) for number, one in enumerate(_camera(15.0, 60.0, jitter=0.5))]
    assert not any(_old(arrivals, timed=True))
    back = [one._replace(filmed=one.filmed % 5000) for one in _camera(25.0, 30.0)]
    assert not any(_old(back, timed=True))


@pytest.mark.parametrize("fps", [2.0, 3.0])
def test_times_that_claim_ten_times_the_cameras_rate_are_given_up(fps: float) -> None:
    """In the dark a camera films 3 frames a second and goes on stamping 30."""
    arrivals = [one._replace(filmed=1000 * number / 30) for number, one in enumerate(_camera(fps, 200.0, jitter=0.3))]
    old = _old(arrivals, timed=True)
    assert sum(old) <= 11 and not any(old[20:])


def test_pauses_of_a_camera_without_times_are_no_queues() -> None:
    """80 ms between two frames on average, at random: what a busy wireless network makes of a camera."""
    chance, before, arrivals = random.Random(3), 0.0, []
    for _ in range(2000):
        gap = chance.expovariate(1 / 80)
        before += gap
        arrivals.append(Arrival(before, before, gap))
    assert sum(_old(arrivals, timed=False)) <= 0.02 * len(arrivals)
