from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
from runtime.fakes import FakeClock, ListSource, NumpyEngine

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.files import sha256_file
from rtda_runtime import Segmenter, open_source
from rtda_runtime.benchmark import benchmark, environment

FRAMES = [np.zeros((64, 96, 3), np.uint8)]


def _segmenter(clock: FakeClock, inference_s: Callable[[], float]) -> Segmenter:
    """A network whose inference takes as long as it is told, on the fake clock."""
    return Segmenter(NumpyEngine(before=lambda: clock.sleep(inference_s())), clock=clock)


def _measure(inference_s: Callable[[], float], frames: Any = FRAMES, **settings: Any) -> Any:
    clock = FakeClock()
    settings = {"warmup_s": 0.1, "window_s": 1.0, **settings}
    return benchmark(_segmenter(clock, inference_s), frames, clock=clock, sleep=clock.sleep, **settings)


def test_a_steady_network_settles_after_two_windows() -> None:
    record = _measure(lambda: 0.010)
    assert record["settled"] is True
    assert len(record["windows"]) == 2 and record["windows"][0]["change"] is None
    for stage in ("infer", "total"):
        for figure in ("mean", "p50", "p90", "p95", "p99", "max"):
            assert record["stages"][stage][figure] == pytest.approx(10.0)
    assert record["throughput"] == pytest.approx(100.0)
    assert record["late"] is None


def test_a_network_that_slows_down_is_said_not_to_settle() -> None:
    slower = iter(np.geomspace(0.01, 10.0, 2000))
    record = _measure(lambda: float(next(slower)), max_windows=4)
    assert record["settled"] is False
    assert len(record["windows"]) == 4
    assert record["windows"][-1]["change"] > 0.05


def test_warm_up_is_not_measured() -> None:
    def first_runs_are_slow() -> Iterator[float]:
        yield from [3.0, 0.5]
        while True:
            yield 0.01

    times = first_runs_are_slow()
    record = _measure(lambda: next(times))
    assert record["stages"]["total"]["max"] == pytest.approx(10.0)


def test_slow_networks_get_windows_long_enough_for_a_percentile() -> None:
    record = _measure(lambda: 0.3)
    assert [window["frames"] for window in record["windows"]] == [20, 20]


def test_a_duration_is_kept_whether_or_not_it_settles() -> None:
    record = _measure(lambda: 0.01, duration_s=5.0)
    assert sum(window["seconds"] for window in record["windows"]) == pytest.approx(5.0, abs=0.05)


def test_a_fixed_rate_is_kept_and_latency_measured_at_it() -> None:
    record = _measure(lambda: 0.010, rate_hz=20)
    assert record["throughput"] == pytest.approx(20.0, rel=0.06)
    assert record["stages"]["total"]["p95"] == pytest.approx(10.0)
    assert record["late"] == 0


def test_a_rate_that_is_too_high_is_counted_as_late() -> None:
    record = _measure(lambda: 0.100, rate_hz=20)
    assert record["throughput"] == pytest.approx(10.0, rel=0.06)
    assert record["late"] > 0


def test_reading_a_source_is_measured_too_and_said() -> None:
    record = _measure(lambda: 0.05, frames=ListSource(70))
    assert set(record["stages"]) == {"capture", "preprocess", "infer", "postprocess", "total"}
    assert record["settings"]["includes"].startswith("capture")
    assert record["frame_hw"] == [4, 6]


def test_waiting_for_a_camera_is_reported_but_is_no_part_of_the_total() -> None:
    clock = FakeClock()
    camera = ListSource(200, live=True, before=lambda number: clock.sleep(0.033))
    record = benchmark(_segmenter(clock, lambda: 0.010), camera, warmup_s=0.1, window_s=1.0, clock=clock)
    assert record["stages"]["capture"]["p50"] == pytest.approx(33.0)
    assert record["stages"]["total"]["p50"] == pytest.approx(10.0)
    assert "capture" not in record["settings"]["includes"]


def test_a_source_that_ends_is_measured_as_far_as_it_goes() -> None:
    record = _measure(lambda: 0.05, frames=ListSource(30), window_s=100.0)
    assert record["stages"]["total"]["count"] == 28 and record["settled"] is False


def test_a_source_shorter_than_the_warm_up_is_an_error() -> None:
    with pytest.raises(SourceError, match="ended before"):
        _measure(lambda: 1.0, frames=ListSource(2))


@pytest.mark.parametrize(
    "settings",
    [{"window_s": 0}, {"warmup_s": -1}, {"rate_hz": 0}, {"duration_s": -1}, {"tolerance": 0}, {"max_windows": 0}],
)
def test_settings_that_make_no_sense_are_refused(settings: Any) -> None:
    with pytest.raises(ConfigError):
        _measure(lambda: 0.01, **settings)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        _measure(lambda: 0.01, frames=[])


def test_the_record_names_model_and_machine(model_path: Path) -> None:
    with Segmenter.open(model_path) as segmenter, open_source("test://bars?fps=0&size=96x64") as source:
        record = benchmark(segmenter, source, warmup_s=0.0, window_s=0.02, max_windows=2)
    record = json.loads(json.dumps(record))
    assert record["format"] == "rtda.bench/1"
    assert record["model"]["sha256"] == sha256_file(model_path)
    assert (record["model"]["provider"], record["model"]["size_hw"]) == ("cpu", [64, 96])
    machine = record["environment"]
    assert machine["numpy"] == np.__version__ and machine["onnxruntime"] and machine["opencv"]
    assert machine["cpu"] and machine["cores"] >= 1


def test_environment_is_json() -> None:
    json.dumps(environment())
