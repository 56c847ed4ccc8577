from __future__ import annotations

import numpy as np
import pytest

from rtda_runtime.timing import StageTimes


def test_summary_has_the_figures_numpy_gives() -> None:
    values = np.random.default_rng(0).gamma(2, 10, 1000)
    times = StageTimes()
    for value in values:
        times.add({"infer": value})
    summary = times.summary()["infer"]
    for name, percentile in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        assert summary[name] == pytest.approx(np.percentile(values, percentile), rel=1e-6)
    assert summary["mean"] == pytest.approx(values.mean())
    assert summary["max"] == pytest.approx(values.max())
    assert summary["count"] == 1000


def test_memory_is_bounded_and_percentiles_are_of_the_newest() -> None:
    times = StageTimes(kept=100)
    for value in [1000.0] * 50 + [5.0] * 500:
        times.add({"infer": value})
    summary = times.summary()["infer"]
    assert (summary["p99"], summary["count"], summary["max"]) == (5.0, 550, 1000.0)
    assert summary["mean"] == pytest.approx((50 * 1000 + 500 * 5) / 550)
    assert len(times._stages["infer"]._ring) == 100


def test_stages_come_in_the_order_they_happen_and_others_after_them() -> None:
    times = StageTimes()
    times.add({"age": 1.0, "publish": 2.0, "infer": 3.0, "capture": 4.0})
    assert list(times.summary()) == ["capture", "infer", "age", "publish"]


def test_nothing_recorded_is_an_empty_table() -> None:
    assert StageTimes().summary() == {}
