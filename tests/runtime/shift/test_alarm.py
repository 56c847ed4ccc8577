"""The alarm on synthetic drives: the time between false alarms is held, and what is another world raises it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from runtime.shift.drives import WIDTHS, Drive

from rtda_deploy.errors import ConfigError
from rtda_runtime.shift.alarm import ShiftAlarm, ShiftState

APART_S = 1800.0
BLOCKS_APART = int(APART_S / 3)


def _states(alarm: ShiftAlarm, blocks: np.ndarray) -> list[ShiftState]:
    return [alarm.add_block(block) for block in blocks]


@pytest.mark.parametrize(("alike", "tails"), [(0.0, None), (0.6, None), (0.6, 5)])
def test_false_alarms_are_no_oftener_than_asked(alike: float, tails: int | None) -> None:
    alarms = 0
    for seed in range(6):  # six calibrations: a bad one is bad for ever
        drive = Drive(seed, alike, tails)
        alarms += _states(ShiftAlarm(drive.familiar(300), APART_S), drive.blocks(2 * BLOCKS_APART))[-1].alarms
    assert alarms <= 12  # what was asked for: twice the time between two of them, six times


def test_without_the_correction_for_neighbours_the_promise_would_be_broken() -> None:
    """The test above has power: naive p-values and no memory are in alarm for much of the time."""
    from rtda_runtime.shift.cusum import Cusum, log_bets
    from rtda_runtime.shift.reference import Reference, unpacked

    raised = 0
    for seed in range(10):
        drive = Drive(seed, 0.9)
        values = unpacked(drive.familiar(100))["features"]
        reference = Reference(values, "features")
        known = np.sort(reference.scores(values))  # of the blocks that it is made of: smaller than those to come
        features = slice(WIDTHS[0], sum(WIDTHS[:2]))
        scores = reference.scores(drive.blocks(2 * BLOCKS_APART)[:, features])
        ranks = len(known) - np.searchsorted(known, scores)
        cusum = Cusum(math.log(BLOCKS_APART), 1.0)
        for log_bet in log_bets((ranks + 1) / (len(known) + 1)):
            cusum.add(float(log_bet))
            raised += cusum.alarm
    assert raised > 0.5 * 10 * 2 * BLOCKS_APART


@pytest.mark.parametrize(("shift", "most_blocks"), [(1.5, 40), (3.0, 20), (8.0, 8)])
def test_another_world_raises_the_alarm_the_sooner_the_further_it_is(shift: float, most_blocks: int) -> None:
    delays = []
    for seed in range(5):
        drive = Drive(seed, 0.3)
        alarm = ShiftAlarm(drive.familiar(300), APART_S)
        _states(alarm, drive.blocks(100))
        states = _states(alarm, drive.blocks(200, shift))
        delays.append(next(place for place, state in enumerate(states) if state.unfamiliar))
    assert np.median(delays) <= most_blocks


def test_it_says_which_signal_how_far_and_since_when_and_ends_when_the_world_is_back() -> None:
    drive = Drive(3, 0.3)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    before = _states(alarm, drive.blocks(50))[-1]
    assert (before.state, before.alarms) == ("familiar", 0) and before.since_s == 150.0
    raised = _states(alarm, drive.blocks(60, 4.0))[-1]
    assert (raised.state, raised.signal, raised.alarms) == ("unfamiliar", "features", 1)
    assert raised.evidence >= 1.0 and raised.distance > 2.0 and 60 < raised.since_s < 180
    assert "unfamiliar" in raised.sentence() and "features" in raised.sentence()
    after = _states(alarm, drive.blocks(200))[-1]
    assert (after.state, after.alarms) == ("familiar", 1)
    assert len(after.curve) == 240 and max(after.curve) >= 1.0


def test_a_robot_that_stands_somewhere_unusual_raises_no_alarm_however_long() -> None:
    drive = Drive(4, 0.3)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    blocks = drive.blocks(400)
    scores = [(state.distance, place) for place, state in enumerate(_states(alarm, blocks))]
    unusual = blocks[sorted(scores)[-3][1]]  # of four hundred the third furthest: an alarm in a row
    standing = ShiftAlarm(drive.familiar(300), APART_S)
    noise = np.random.default_rng(0).normal(scale=1e-3, size=(2000, len(unusual)))
    assert _states(standing, unusual + noise)[-1].alarms == 0


def test_a_covered_lens_stands_still_too_and_raises_it() -> None:
    drive = Drive(5, 0.3)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    _states(alarm, drive.blocks(20))
    covered = np.tile(drive.blocks(1, 12.0), (30, 1))
    assert _states(alarm, covered)[-1].unfamiliar


def test_slow_dusk_on_a_robot_that_stands_still_raises_it() -> None:
    drive = Drive(6, 0.3)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    scene = drive.blocks(1)
    darker = scene + np.linspace(0.0, 1.0, 200)[:, None] * np.repeat([4.0, 0.0], [sum(WIDTHS[:2]), sum(WIDTHS[2:])])
    states = _states(alarm, darker)
    assert not states[20].unfamiliar and states[-1].unfamiliar


def test_slow_dusk_counts_before_it_is_beyond_all_that_is_known() -> None:
    drive = Drive(6, 0.3)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    scene = drive.blocks(1)
    darker = scene + np.linspace(0.0, 2.0, 400)[:, None] * np.repeat([1.0, 0.0], [sum(WIDTHS[:2]), sum(WIDTHS[2:])])
    state = _states(alarm, darker)[-1]
    assert state.distance < 2.0 and state.signals["appearance"] > 0.1


def test_a_time_that_the_blocks_do_not_support_is_refused_with_the_footage_that_would() -> None:
    with pytest.raises(ConfigError) as caught:
        ShiftAlarm(Drive(7, 0.6).familiar(150), 30 * 86400.0)
    assert "30 days" in caught.value.message and "at most" in caught.value.message
    assert "independent" in caught.value.why
    assert "--footage" in caught.value.hint and "of footage" in caught.value.hint and "--shift " in caught.value.hint


@pytest.mark.parametrize("blocks", [10, 18])
def test_hardly_any_footage_supports_no_alarm(blocks: int) -> None:
    with pytest.raises(ConfigError) as caught:
        ShiftAlarm(Drive(8).familiar(blocks), 60.0)
    assert "no alarm at all" in caught.value.message


def test_a_card_with_a_handful_of_blocks_is_refused() -> None:
    few = dataclasses.replace(Drive(8).familiar(12), stretches=(3,), packed=bytes(3 * sum(WIDTHS)))
    with pytest.raises(ConfigError, match="too few"):
        ShiftAlarm(few, 60.0)


def test_a_card_of_another_network_is_refused() -> None:
    alarm = ShiftAlarm(Drive(9).familiar(300), APART_S)
    with pytest.raises(ConfigError, match="30 numbers a frame, its card has 29"):
        alarm.add(0.0, np.zeros(30))


def test_frames_make_blocks_and_broken_numbers_none() -> None:
    drive = Drive(10)
    alarm = ShiftAlarm(drive.familiar(300), APART_S)
    block = drive.blocks(1)[0]
    assert [alarm.add(at_s, block) for at_s in (0.0, 1.0)] == [None, None]
    assert alarm.add(2.0, np.full(len(block), np.nan)) is None
    state = alarm.add(2.5, block)
    assert state is not None and state.blocks == 1
    assert set(state.to_dict()) == {
        "state", "since_s", "signal", "evidence", "distance", "blocks", "alarms", "apart_s", "signals", "curve",
    }  # fmt: skip
