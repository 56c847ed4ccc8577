"""The parts of the shift alarm's benchmark: exact intervals, the usual test, spoiled pictures, resampled drives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def test_intervals_are_those_of_the_tables(benchmark_module: Any) -> None:
    module = benchmark_module("shift_alarm")
    assert module._poisson_interval(0) == pytest.approx((0.0, 3.689), abs=0.002)
    assert module._poisson_interval(5) == pytest.approx((1.623, 11.668), abs=0.002)


def test_the_usual_test_tells_two_samples_apart_and_one_from_itself_not(benchmark_module: Any) -> None:
    module = benchmark_module("shift_alarm")
    random = np.random.default_rng(0)
    one, other = np.sort(random.normal(size=200)), np.sort(random.normal(size=50))
    assert module._ks_p(one, other) > 1e-3 and module._ks_p(one, other + 1.0) < 1e-3


def test_each_strength_changes_more_than_the_one_before(benchmark_module: Any) -> None:
    worlds = benchmark_module("shift_worlds")
    random = np.random.default_rng(0)
    frame = np.kron(random.integers(0, 256, (12, 16, 3)), np.ones((30, 30, 1))).astype(np.uint8)
    for name, spoil in worlds.SPOILERS.items():
        far = [np.abs(spoil(frame, strength, random).astype(float) - frame).mean() for strength in range(5)]
        assert sorted(far) == far and far[0] > 0, name
    dusk = worlds.slow_dusk([frame], 5)
    assert [picture.mean() for picture in dusk] == sorted((picture.mean() for picture in dusk), reverse=True)


def test_resampled_drives_keep_runs_of_neighbours(benchmark_module: Any) -> None:
    drawn = benchmark_module("shift_worlds").resampled(np.arange(30)[:, None], 95, 10, np.random.default_rng(0))[:, 0]
    assert len(drawn) == 95 and (np.diff(drawn) == 1).sum() >= 80
