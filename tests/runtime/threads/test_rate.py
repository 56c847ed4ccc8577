"""The limit of a rate."""

from __future__ import annotations

import threading
from typing import Any, List

import numpy as np
import pytest
from runtime.fakes import FakeClock

from rtda_runtime.pipeline.reader import RateLimit


def test_a_recording_is_read_at_the_rate() -> None:
    clock = FakeClock()
    waits: List[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: Any = None) -> bool:
            waits.append(round(timeout, 3))
            clock.sleep(timeout)
            return False

    limit = RateLimit(10.0, clock)
    for spent_s in (0.0, 0.03, 0.0, 0.35, 0.0, 0.0):
        limit.wait(Stop())
        clock.sleep(spent_s)
    # at once; 100 ms; the rest of 100 ms after 30 of work; 100 ms; at once, being late; no burst afterwards
    assert waits == [0.1, 0.07, 0.1, 0.1]


@pytest.mark.parametrize(("camera_hz", "asked_hz", "share"), [(60, 30, 2), (30, 30, 1), (90, 30, 3), (20, 30, 1)])
def test_of_a_camera_the_frames_that_come_too_early_are_passed_over(camera_hz: int, asked_hz: int, share: int) -> None:
    jitter = np.random.default_rng(0).uniform(-0.05, 0.05, 300) / camera_hz
    limit = RateLimit(asked_hz, lambda: 0)
    taken = [limit.is_due(round(1e9 * (number / camera_hz + late))) for number, late in enumerate(jitter)]
    assert sum(taken) == pytest.approx(300 / share, abs=2)
