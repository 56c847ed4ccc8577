from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import FakeClock, ListSource, NumpyEngine

from rtda_deploy.errors import ConfigError, SourceError
from rtda_deploy.files import sha256_file
from rtda_runtime import Segmenter, SegmenterPool, open_source
from rtda_runtime.bench.benchmark import benchmark
from rtda_runtime.bench.record import load_record
from rtda_runtime.bench.samplers import Schedule, ScheduledSource

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
    assert record.settled is True
    assert len(record.windows) == 2 and record.windows[0].change is None
    for stage in ("infer", "total"):
        for figure in ("mean", "p50", "p90", "p95", "p99", "max"):
            assert getattr(record.stages[stage], figure) == pytest.approx(10.0)
    assert record.throughput == pytest.approx(100.0)
    assert record.late is None


def test_a_network_that_slows_down_is_said_not_to_settle() -> None:
    slower = iter(np.geomspace(0.01, 10.0, 2000))
    record = _measure(lambda: float(next(slower)), max_windows=4)
    assert record.settled is False
    assert len(record.windows) == 4
    assert record.windows[-1].change > 0.05


def test_warm_up_is_not_measured() -> None:
    def first_runs_are_slow() -> Iterator[float]:
        yield from [3.0, 0.5]
        while True:
            yield 0.01

    times = first_runs_are_slow()
    record = _measure(lambda: next(times))
    assert record.stages["total"].max == pytest.approx(10.0)


def test_slow_networks_get_windows_long_enough_for_a_percentile() -> None:
    record = _measure(lambda: 0.3)
    assert [window.frames for window in record.windows] == [20, 20]


def test_a_duration_is_kept_whether_or_not_it_settles() -> None:
    record = _measure(lambda: 0.01, duration_s=5.0)
    assert sum(window.seconds for window in record.windows) == pytest.approx(5.0, abs=0.05)


def test_a_fixed_rate_is_kept_and_latency_measured_at_it() -> None:
    record = _measure(lambda: 0.010, rate_hz=20)
    assert record.throughput == pytest.approx(20.0, rel=0.06)
    assert record.stages["total"].p95 == pytest.approx(10.0)
    assert record.late == 0


def test_latency_at_a_rate_counts_from_when_a_frame_was_due() -> None:
    """One stall of 0.4 s at 20 Hz: the frame that was due at its start is taken 0.35 s late by the newest one due."""
    stall = iter([0.01] * 12 + [0.41] + [0.01] * 10_000)
    record = _measure(lambda: next(stall), rate_hz=20, duration_s=2.0)
    assert record.stages["total"].max == pytest.approx(410.0)
    slowest = record.samples["total"].index(max(record.samples["total"]))
    behind = record.samples["total"][slowest + 1]
    assert behind == pytest.approx(20.0), "due 10 ms before the stall ended"
    assert record.stages["wait"].max == pytest.approx(10.0)
    assert record.missed == 7 and record.late == 8
    assert record.offered == record.stages["total"].count + record.missed


def test_a_frame_that_waits_less_than_a_period_waits_in_its_latency_too() -> None:
    """60 ms of work every 50 ms: each frame begins later than the one before, until one is overtaken."""
    record = _measure(lambda: 0.060, rate_hz=20, duration_s=3.0)
    waits = record.samples["wait"]
    assert {round(wait) for wait in waits} == {0, 10, 20, 30, 40}
    assert [round(total - wait) for total, wait in zip(record.samples["total"], waits)] == [60] * len(waits)


def test_a_camera_cannot_be_given_a_rate() -> None:
    with pytest.raises(ConfigError, match="rate of its own"):
        _measure(lambda: 0.01, frames=ListSource(9, live=True), rate_hz=10)


def test_every_sample_is_kept_with_its_time() -> None:
    record = _measure(lambda: 0.010, duration_s=1.0)
    samples = record.samples
    assert set(samples) == {"at_s", *record.stages}
    assert {len(values) for values in samples.values()} == {record.stages["total"].count}
    assert samples["at_s"][:3] == pytest.approx([0.01, 0.02, 0.03])
    assert record.variation["total"] == pytest.approx(0.0, abs=1e-9)


def test_the_coefficient_of_variation_is_that_of_the_samples() -> None:
    times = iter([0.01, 0.03] * 1000)
    assert _measure(lambda: next(times), duration_s=1.0).variation["infer"] == pytest.approx(0.5, abs=0.01)


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


def test_the_record_names_model_and_machine_and_is_the_same_when_it_is_read_back(
    model_path: Path, tmp_path: Path
) -> None:
    with Segmenter.open(model_path) as segmenter:
        record = benchmark(segmenter, FRAMES, warmup_s=0.0, window_s=0.02, max_windows=2, threads=1)
        assert record.model.spec == segmenter.spec.to_dict()
    assert record.model.sha256 == sha256_file(model_path)
    assert (record.model.provider, record.model.size_hw, record.model.threads) == ("cpu", (64, 96), 1)
    assert record.settings.measures == "network"
    assert record.environment.versions["onnxruntime"] and record.environment.cores >= 1
    assert record.conditions.own_cores > 0 and record.conditions.memory_peak_mb > 1
    (tmp_path / "times.json").write_text(json.dumps(record.to_dict()))
    assert load_record(tmp_path).to_dict() == json.loads((tmp_path / "times.json").read_text())


# the whole pipeline, with its threads and the real clock


def _through(model_path: Path, uri: str, **settings: Any) -> Any:
    source = open_source(uri)
    with Segmenter.open(model_path, threads=1) as segmenter:
        return benchmark(segmenter, source, warmup_s=0.0, **settings)


def test_a_pipeline_reads_a_recording_as_fast_as_masks_are_made(model_path: Path) -> None:
    record = _through(model_path, "test://bars?fps=0&size=96x64&frames=60", duration_s=600)
    assert record.settings.measures == "pipeline"
    assert set(record.stages) == {"capture", "preprocess", "infer", "postprocess", "total"}
    assert record.stages["total"].count == 58, "every frame after the two of the warm-up"
    assert (record.offered, record.missed, record.late) == (None, None, None)
    for index, total in enumerate(record.samples["total"]):
        parts = sum(record.samples[stage][index] for stage in ("capture", "preprocess", "infer", "postprocess"))
        assert total == pytest.approx(parts, abs=0.001)
    assert record.frame_hw == (64, 96) and record.settled is False


def test_a_source_shorter_than_the_warm_up_is_an_error(model_path: Path) -> None:
    with pytest.raises(SourceError, match="ended before"):
        _through(model_path, "test://bars?fps=0&size=96x64&frames=2")


def test_a_pipeline_with_a_camera_counts_from_the_capture(model_path: Path) -> None:
    record = _through(model_path, "test://bars?fps=50&size=96x64&frames=30", duration_s=600)
    samples = record.samples
    for index, total in enumerate(samples["total"]):
        parts = sum(samples[stage][index] for stage in ("wait", "preprocess", "infer", "postprocess"))
        assert total == pytest.approx(parts, abs=0.001), "waiting for the camera (capture) is no part of it"
    assert "capture" in samples
    assert record.offered == record.stages["total"].count + record.missed
    assert record.late is None


def test_a_recording_is_offered_to_a_pipeline_at_a_rate(model_path: Path) -> None:
    record = _through(model_path, "test://bars?fps=0&size=96x64&frames=30", duration_s=600, rate_hz=100)
    assert "due" in record.settings.includes
    assert record.offered == record.stages["total"].count + record.missed
    assert record.late >= record.missed >= 0
    assert "wait" in record.stages, "as of a camera"


class _WaitsOn(threading.Event):
    """An event that is never set and whose waits pass on a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: Optional[float] = None) -> bool:
        self._clock.sleep(timeout or 0.0)
        return False


def test_frames_are_stamped_with_when_they_were_due_and_overtaken_ones_are_missed() -> None:
    clock = FakeClock()
    reads = iter([0.0, 0.25, 0.0, 0.0])  # reading the second frame takes a quarter of a second
    recording = ListSource(4, before=lambda number: clock.sleep(next(reads)))
    schedule = Schedule(10.0, clock)
    source = ScheduledSource(recording, schedule, _WaitsOn(clock))
    began = clock.now_ns
    frames = [source.read() for _ in range(4)]
    assert [(frame.captured_ns - began) / 1e8 for frame in frames if frame] == pytest.approx([1, 2, 4, 5])
    assert (schedule.missed, schedule.late) == (1, 2), "the missed one, and the one that began late"
    assert source.live, "a frame waits for nobody"


def test_closing_ends_the_wait_for_a_turn() -> None:
    source = ScheduledSource(ListSource(4), Schedule(0.5, time.perf_counter_ns))
    source.interrupt()
    with pytest.raises(SourceError, match="closed"):
        source.read(timeout_s=60)


# Several frames in flight


def test_several_pictures_at_once_give_the_rate_of_all_and_the_stages_of_each() -> None:
    together, first = threading.Barrier(2), [1, 2]

    def before() -> None:  # the first two wait for each other: in turn they would not end
        if first:
            first.pop()
            together.wait(PATIENCE_S)

    engines = [NumpyEngine(before=before) for _ in range(2)]
    pool = SegmenterPool([Segmenter(engine) for engine in engines])
    frames = [np.zeros((40, 60, 3), np.uint8)] * 3
    record = benchmark(pool, frames, warmup_s=0.0, window_s=0.05, max_windows=1)
    assert record.settings.in_flight == 2 and "2 are at work at once" in record.settings.includes
    assert record.frame_hw == (40, 60) and (record.missed, record.late) == (None, None)
    stages, count = record.stages, record.stages["total"].count
    assert record.throughput == pytest.approx(count / record.windows[0].seconds)
    parts = [np.array(record.samples[stage]) for stage in ("preprocess", "infer", "postprocess")]
    assert np.allclose(sum(parts), record.samples["total"], atol=1e-3)
    assert list(stages) == ["preprocess", "infer", "postprocess", "total"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rtda-segment")]


def test_who_stops_a_measurement_leaves_no_thread_behind() -> None:
    calls: List[int] = []

    def clock() -> int:
        calls.append(1)
        if len(calls) > 50:
            raise KeyboardInterrupt
        return time.perf_counter_ns()

    pool = SegmenterPool([Segmenter(NumpyEngine()) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt) as caught:
        benchmark(pool, FRAMES, warmup_s=0.0, window_s=60.0, clock=clock)
    assert caught.traceback is not None, "it holds what was at work"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rtda-segment")]


def test_a_recording_is_measured_with_several_frames_in_flight(model_path: Path) -> None:
    with SegmenterPool.open(model_path, "cpu", in_flight=2, threads=1) as pool:
        source = open_source("test://bars?fps=0&size=96x64&frames=30")
        record = benchmark(pool, source, warmup_s=0.0, duration_s=60.0)
    assert record.settings.in_flight == 2 and record.settings.measures == "pipeline"
    assert record.stages["total"].count >= 20 and record.offered is None


def test_several_frames_in_flight_are_refused_where_frames_are_due() -> None:
    pool = SegmenterPool([Segmenter(NumpyEngine()) for _ in range(2)])
    camera, recording = ListSource(3, live=True), ListSource(3)
    picture = [np.zeros((4, 6, 3), np.uint8)]
    for frames, rate in ((picture, 30.0), (camera, None), (recording, 30.0)):
        with pytest.raises(ConfigError, match="in flight would make"):
            benchmark(pool, frames, rate_hz=rate)
