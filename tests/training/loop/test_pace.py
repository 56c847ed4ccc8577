"""What a training will take is said early, and only where it is worth saying."""

import pytest

from rtda_training.loop import pace
from rtda_training.loop.pace import Pace


@pytest.fixture()
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def steps(clock, found, *seconds):
    said = []
    for each in seconds:
        clock[0] += each
        row = found.tick()
        said.append((found.early(), found.expectation()))
    return row, said


def test_slow_steps_are_announced_after_a_few_and_the_first_one_does_not_count(clock):
    row, said = steps(clock, Pace(4, 103, later=97), 50.0, 8.0, 8.0, 8.0)
    assert row == {"pictures_per_s": 0.5, "eta_s": 99 * 8}
    assert [early for early, _ in said] == [True, True, False, False]
    assert [text for _, text in said[:2]] == ["", ""] and said[3][1] == ""
    assert said[2][1].startswith(
        "expect  about 26 minutes for the 197 steps left, at 8 s each as measured on the first 2"
    )


def test_quick_steps_are_measured_for_longer_and_seconds_are_not_worth_a_word(clock):
    _, said = steps(clock, Pace(4, 2011), *[1.0] * 11)
    assert [bool(text) for _, text in said] == [False] * 10 + [True]
    assert "about 33 minutes for the 2000 steps left, at 1 s each as measured on the first 10" in said[-1][1]
    _, said = steps(clock, Pace(4, 60), *[1.0] * 20)
    assert not any(text for _, text in said)


def test_long_times_are_told_in_hours_and_days():
    assert [pace._time(seconds) for seconds in (60, 5390, 5400, 172_800)] == [
        "1 minute",
        "90 minutes",
        "1.5 hours",
        "2.0 days",
    ]
