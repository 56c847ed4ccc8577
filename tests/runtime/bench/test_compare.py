"""What differs between two records, whether that is more than noise, and what cannot be compared."""

from __future__ import annotations

import re
from typing import Any, Dict

import pytest
from runtime.bench.records import timed_record, timed_values

from rtda_deploy.errors import ConfigError
from rtda_runtime.bench.compare import Comparison, Difference, compare_records
from rtda_runtime.bench.record import BenchRecord


def row(found: Comparison, stage: str, figure: str) -> Difference:
    return next(row for row in found.rows if (row.stage, row.figure) == (stage, figure))


def test_a_slower_result_is_called_slower_with_its_interval() -> None:
    found = compare_records(timed_record(10.0), timed_record(12.0, seed=1))
    slower = row(found, "total", "p50")
    assert slower.verdict == "slower"
    assert slower.change == pytest.approx(0.2, abs=0.05)
    assert slower.low < slower.change < slower.high and slower.low > 0.1
    rate = row(found, "frames/s", "mean")
    assert rate.verdict == "slower" and rate.change == pytest.approx(-1 / 6, abs=0.05)


def test_a_faster_result_is_called_faster() -> None:
    found = compare_records(timed_record(10.0), timed_record(8.0, seed=1))
    assert row(found, "total", "p95").verdict == "faster"
    assert row(found, "frames/s", "mean").verdict == "faster"


def test_noise_is_no_difference() -> None:
    """Slow waves make medians of single draws differ by a percent or two; blocks know that."""
    verdicts = [
        row(compare_records(timed_record(seed=2 * n), timed_record(seed=2 * n + 1)), "total", "p50").verdict
        for n in range(20)
    ]
    assert verdicts.count("same") >= 17, verdicts


def test_too_few_frames_give_no_verdict() -> None:
    values = timed_values(12.0)
    few = BenchRecord.from_dict({**values, "samples": {name: kept[:79] for name, kept in values["samples"].items()}})
    found = row(compare_records(timed_record(), few), "total", "p50")
    assert (found.verdict, found.low) == ("unknown", None)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"environment": {"cpu": "Another CPU"}}, "device: .* and Another CPU"),
        ({"environment": {"gpus": [{"name": "T4"}]}}, "GPU: none and T4"),
        (
            {"environment": {"jetson": {"model": "Xavier", "power_mode": {"name": "MODE_10W", "number": 1}}}},
            "power mode: none and MODE_10W",
        ),
        ({"model": {"size_hw": [512, 1024]}}, "network size: 96x64 and 1024x512"),
        ({"frame_hw": [720, 1280]}, "frame size: 96x64 and 1280x720"),
        ({"settings": {"rate_hz": 30.0}}, "rate: the highest and 30 Hz"),
        ({"settings": {"measures": "pipeline"}}, "measured: network and pipeline"),
        ({"settings": {"in_flight": 2}}, "frames in flight: 1 and 2"),
    ],
)
def test_results_that_cannot_be_compared_are_refused_unless_told(parts: Dict[str, Any], said: str) -> None:
    a, b = timed_record(), timed_record(12.0, **parts)
    with pytest.raises(ConfigError, match="cannot be compared") as caught:
        compare_records(a, b)
    assert re.search(said, caught.value.why) and "--force" in caught.value.hint
    forced = compare_records(a, b, force=True)
    assert forced.different_setup and row(forced, "total", "p50").verdict == "slower"


def test_another_model_or_provider_is_what_comparing_is_for() -> None:
    other = timed_record(model={"sha256": "0" * 64, "file": "b.onnx", "provider": "openvino"})
    found = compare_records(timed_record(), other)
    assert found.different_setup == () and "provider: cpu -> openvino" in found.changed
