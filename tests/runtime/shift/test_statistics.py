"""Blocks, distances, p-values and CUSUM, each alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from runtime.shift.drives import Drive

from rtda_deploy.errors import ConfigError
from rtda_runtime.shift.blocks import BlockMaker
from rtda_runtime.shift.conformal import CalibratedScores, least_p, memory
from rtda_runtime.shift.cusum import DELTA, Cusum, alarm_level, log_bets, log_spans
from rtda_runtime.shift.reference import Reference, cross_scores, unpacked
from rtda_runtime.shift.support import duration_s, duration_text, footage_needed_s, longest_s, reachable_s


def test_a_block_is_the_mean_of_three_frames_a_second_apart_whatever_the_camera_s_rate() -> None:
    maker = BlockMaker(1.0, 3)
    given = [(tick, maker.add(tick / 30.0, np.array([tick // 30]))) for tick in range(200)]
    found = [(tick, block.tolist()) for tick, block in given if block is not None]
    assert found == [(60, [1.0]), (150, [4.0])]


def test_frames_around_a_gap_or_a_clock_that_went_back_make_no_block() -> None:
    maker = BlockMaker(1.0, 3)
    times = (0.0, 1.0, 9.0, 10.0, 3.0, 4.0)  # a gap, then a recording that begins again
    assert [maker.add(at_s, np.zeros(1)) for at_s in times] == [None] * 6
    assert maker.add(5.0, np.ones(1)) is not None


def test_a_block_keeps_no_view_of_the_engine_s_own_memory() -> None:
    maker, memory_of_engine = BlockMaker(1.0, 2), np.zeros(2)
    assert maker.add(0.0, memory_of_engine.copy()) is None
    memory_of_engine[:] = 2.0
    block = maker.add(1.0, memory_of_engine)
    assert block is not None and block.tolist() == [1.0, 1.0]


def test_blocks_come_back_from_a_card_within_a_step_of_a_byte() -> None:
    drive = Drive(1)
    found = unpacked(drive.familiar(50))
    before = Drive(1).blocks(50)
    steps = (before.max(axis=0) - before.min(axis=0)) / 255.0
    assert np.abs(found["appearance"] - before[:, :8]).max(axis=0) == pytest.approx(0, abs=steps[:8].max())
    assert found["confidence"][:, 0] == pytest.approx(before[:, -1], abs=steps[-1])


def test_a_block_is_scored_by_a_reference_that_has_not_seen_it() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    values[7] = 40.0  # alone, it would widen the spread that it is measured by
    within = Reference(values, "features").scores(values)[7]
    assert cross_scores(values, "features")[7] > 4 * within


def test_what_channels_always_do_together_counts_less_than_what_they_never_did() -> None:
    random = np.random.default_rng(1)
    light = random.normal(size=(200, 1))
    reference = Reference(light + 0.1 * random.normal(size=(200, 12)), "appearance")
    together, apart = np.ones((1, 12)), np.tile([1.0, -1.0], (1, 6))
    assert reference.scores(apart)[0] > 5 * reference.scores(together)[0]
    still = reference.between(np.zeros((1, 12)), 0.05 * apart)[0]
    assert still == pytest.approx(reference.between(np.zeros((1, 12)), 0.05 * together)[0], rel=0.1)


def test_fewer_blocks_than_channels_make_a_reference() -> None:
    values = np.random.default_rng(2).normal(size=(8, 64))
    assert np.isfinite(Reference(values, "appearance").scores(np.zeros((1, 64)))).all()


def test_a_channel_that_was_silent_in_the_calibration_does_not_decide_alone() -> None:
    values = np.random.default_rng(0).normal(size=(50, 10))
    values[:, 3] = 0.0
    block = np.zeros((1, 10))
    block[0, 3] = 5.0
    assert Reference(values, "features").scores(block)[0] <= 10.5


def test_memory_is_that_of_an_autoregression_and_one_of_noise() -> None:
    random = np.random.default_rng(2)
    assert memory(random.normal(size=3000), [3000]) == pytest.approx(1.0, abs=0.3)
    values = [0.0]
    for noise in random.normal(size=3000):
        values.append(0.6 * values[-1] + 0.8 * noise)
    assert memory(np.array(values[1:]), [3000]) == pytest.approx(4.0, rel=0.35)  # (1 + 0.6) / (1 - 0.6)


def test_memory_does_not_cross_from_one_recording_to_the_next() -> None:
    values = np.tile([0.0, 1.0], 200)
    runs = np.concatenate([np.sort(values[start : start + 2]) for start in range(0, 400, 2)])
    assert memory(runs, [2] * 200) == 1.0


def test_p_values_are_right_on_average_over_calibrations() -> None:
    random, found = np.random.default_rng(3), []
    for _ in range(2000):
        scores = random.exponential(size=21)
        found.append(CalibratedScores(scores[:20], 20).p_values(scores[20:])[0])
    levels = np.arange(1, 22) / 21.0 + 1e-9
    assert np.abs([(np.array(found) <= level).mean() - level for level in levels]).max() < 0.035


@pytest.mark.parametrize("apart", [60, 400])
def test_the_alarm_allows_for_the_calibration_at_hand(apart: int) -> None:
    """False alarms are as far apart as asked for in nine calibrations of ten; by the average one's level in fewer."""
    count, random, sooner = 30, np.random.default_rng(5), 0
    level = alarm_level(3.0 * apart, 3.0, 1.0, 1, count)
    for _ in range(60):
        # The worst tail that is assumed: beyond the furthest a p-value falls evenly to 0.
        shares = np.sort(random.uniform(size=count))  # how much of the world is as far as each block, or further
        drawn = random.uniform(size=40 * apart)
        ranks = np.searchsorted(shares, drawn)
        p_values = (ranks + 1.0) / (count + 1.0)
        p_values[ranks == 0] *= drawn[ranks == 0] / shares[0]
        cusum, alarms = Cusum(level, 1.0), 0
        for log_bet in log_bets(p_values):
            cusum.add(float(log_bet))
            if cusum.alarm:
                cusum, alarms = Cusum(level, 1.0), alarms + 1
        sooner += alarms > 40
    assert 0 < sooner / 60 <= DELTA + 0.12  # three standard errors over 60


def test_more_blocks_need_a_lower_level() -> None:
    found = [alarm_level(3600.0, 3.0, 1.0, 1, count) for count in (5, 15, 40, 100)]
    assert found == sorted(found, reverse=True) and found[0] > 1.3 * found[-1]
    assert alarm_level(3600.0, 3.0, 1.0, 1, 5000) == found[-1]


def test_a_level_is_that_of_its_time_and_rarer_alarms_need_a_higher_one() -> None:
    levels = [alarm_level(seconds, 3.0, 4.0, 3, 50) for seconds in (100.0, 7200.0, 1e5, 1e8)]
    assert levels == sorted(levels)
    assert math.exp(log_spans(levels[1], 50)) == pytest.approx(3 * 7200 / 12)
    assert math.exp(log_spans(levels[3], 50)) == pytest.approx(3e8 / 12, rel=0.01)


def test_few_blocks_take_part_longer_than_they_could_promise_alone() -> None:
    assert reachable_s(10, 3.0, 8.0, 4) > 600 and longest_s(10, 3.0, 8.0, 4) == 0


def test_beyond_the_calibration_a_p_value_falls_with_the_square_of_the_score() -> None:
    found = CalibratedScores(np.linspace(0.1, 2.0, 100), 100)
    at_end, further = found.p_values(np.array([2.0001, 20.001]))
    assert at_end == pytest.approx(least_p(100), rel=0.01)
    assert further == pytest.approx(at_end / 100, rel=0.01)


def test_blocks_that_are_alike_count_as_fewer() -> None:
    scores = np.linspace(0.1, 2.0, 100)
    far = np.array([3.0])
    assert CalibratedScores(scores, 25).p_values(far) > 3 * CalibratedScores(scores, 100).p_values(far)


def test_a_bet_on_uniform_p_values_is_fair() -> None:
    grid = (np.arange(200_000) + 0.5) / 200_000
    assert np.exp(log_bets(grid)).mean() == pytest.approx(1.0, abs=0.02)
    assert (np.diff(log_bets(grid)) < 0).all()  # so larger p-values than uniform ones win less


def test_an_alarm_begins_at_one_and_ends_below_a_half() -> None:
    cusum, told = Cusum(level=1.0, memory=1.0), []
    for log_bet in (0.6, 0.6, -0.4, -0.4, -0.4):
        cusum.add(log_bet)
        told.append(cusum.alarm)
    assert told == [False, True, True, False, False]


def test_more_footage_supports_longer_times_and_what_is_needed_is_enough() -> None:
    longest = [longest_s(count, 3.0, 2.0, 3) for count in (10, 20, 40, 80, 160, 320)]
    assert longest[0] == 0.0 < longest[1] and sorted(longest) == longest and longest[-1] > 24 * 3600
    needed = footage_needed_s(7200.0, 3.0, 2.0, 3)
    assert longest_s(needed / 6.0, 3.0, 2.0, 3) >= 7200 > longest_s(needed / 6.0 - 1, 3.0, 2.0, 3)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("30m", 1800), ("30min", 1800), ("90s", 90), ("1h30m", 5400), ("0.5d", 43200)]
)
def test_times_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-2h", "0h", "2h3", "nan", "1h-3m"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        duration_s(text)
    assert "--shift 2h" in caught.value.hint


def test_times_for_people_are_rounded_down() -> None:
    assert [duration_text(s) for s in (59.9, 125, 7200, 9000, 400000)] == ["59 s", "2 min", "2 h", "2.5 h", "4 days"]
