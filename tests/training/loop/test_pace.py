"""What a training will take is said early, and only where it is worth saying."""

import pytest

from rtda_training.loop.pace import Pace


def steps(seconds, *arguments, **options):
    """A pace after steps of so many seconds each: the last row, and what was told after each step."""
    now = [0.0]
    found = Pace(*arguments, clock=lambda: now[0], **options)
    said = []
    for each in seconds:
        now[0] += each
        row = found.tick()
        said.append((found.early(), found.expectation()))
    return row, said


def test_slow_steps_are_announced_after_a_few_and_the_first_one_does_not_count():
    row, said = steps([50.0, 8.0, 8.0, 8.0], 4, 103, later=97)
    assert row == {"pictures_per_s": 0.5, "eta_s": 99 * 8}
    assert [early for early, _ in said] == [True, True, False, False]
    assert [text for _, text in said[:2]] == ["", ""] and said[3][1] == ""
    assert said[2][1].startswith(
        "expect  about 26 minutes for the 197 steps left, at 8 s each as measured on the first 2"
    )


def test_quick_steps_are_measured_for_longer_and_seconds_are_not_worth_a_word():
    _, said = steps([1.0] * 11, 4, 2011)
    assert [bool(text) for _, text in said] == [False] * 10 + [True]
    assert "about 33 minutes for the 2000 steps left, at 1 s each as measured on the first 10" in said[-1][1]
    _, said = steps([1.0] * 20, 4, 60)
    assert not any(text for _, text in said)


@pytest.mark.parametrize(
    ("left", "text"), [(6, "1 minute "), (539, "90 minutes "), (540, "1.5 hours "), (17280, "2.0 days ")]
)
def test_long_times_are_told_in_hours_and_days(left, text):
    _, said = steps([1.0, 10.0, 10.0], 4, left + 3)
    assert said[-1][1].startswith(f"expect  about {text}")
