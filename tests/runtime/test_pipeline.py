from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping

import numpy as np
import pytest
from runtime.fakes import ListSource, NumpyEngine
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import CameraError, ConfigError, EngineError, FrameError, SourceError
from rtda_runtime import Pipeline, Segmenter, open_source
from rtda_runtime.result import Result
from rtda_runtime.sinks import Sink

WAIT_S = 10.0  # longest wait for something that takes microseconds: then the test has failed


def _segmenter(before: Callable[[], Any] = lambda: None) -> Segmenter:
    return Segmenter(NumpyEngine(before=before))


class _ListSink(Sink):
    def __init__(self, error: Any = None) -> None:
        self.results: List[Result] = []
        self.closed = 0
        self._error = error

    def write(self, result: Result) -> Mapping[str, float]:
        if self._error is not None:
            raise self._error
        self.results.append(result)
        return {"encode": 1.5}

    def close(self) -> None:
        self.closed += 1


# Which frames


def test_run_keeps_every_frame_of_a_recording_when_inference_is_slow() -> None:
    with Pipeline(_segmenter(lambda: time.sleep(0.001)), ListSource(20)) as pipeline:
        results = list(pipeline)
    assert pipeline.policy == "every"
    assert [result.sequence for result in results] == list(range(20))
    assert [int(result.frame[0, 0, 0]) for result in results] == list(range(20))
    assert {result.dropped for result in results} == {0}


def test_run_keeps_only_the_newest_frame_when_inference_is_slow() -> None:
    at_end = threading.Event()
    source = ListSource(10, live=True, before=lambda number: at_end.set() if number == 10 else None)
    runs: List[int] = []

    def infer_slowly() -> None:  # from the first frame on (the run before it is the warm-up) until the source has ended
        runs.append(1)
        if len(runs) > 1:
            at_end.wait(WAIT_S)

    with Pipeline(_segmenter(infer_slowly), source) as pipeline:
        results = list(pipeline)
    assert pipeline.policy == "newest"
    assert len(results) <= 2  # the one that the engine was busy with, and the newest
    assert results[-1].sequence == 9
    assert results[-1].dropped == pipeline.stats["dropped"] == 10 - len(results)


@pytest.mark.parametrize("seed", range(5))
def test_every_captured_frame_is_given_or_counted_as_dropped(seed: int) -> None:
    pauses = np.random.default_rng(seed).random(200) * 0.001
    source = ListSource(60, live=True, before=lambda number: time.sleep(pauses[number]))
    with Pipeline(_segmenter(lambda: time.sleep(pauses[seed])), source) as pipeline:
        results = list(pipeline)
    sequences = [result.sequence for result in results]
    assert sequences == sorted(set(sequences)) and sequences[-1] == 59
    # Before each result, exactly the frames that are missing from the sequence were dropped.
    assert [result.dropped for result in results] == [seen - index for index, seen in enumerate(sequences)]
    assert pipeline.stats["captured"] == 60 == len(results) + pipeline.stats["dropped"]


def test_policy_may_be_chosen() -> None:
    with Pipeline(_segmenter(lambda: time.sleep(0.001)), ListSource(10, live=True), policy="every") as pipeline:
        assert [result.sequence for result in pipeline] == list(range(10))


def test_max_frames_ends_the_run() -> None:
    with Pipeline(_segmenter(), ListSource(1000), max_frames=3) as pipeline:
        assert [result.sequence for result in pipeline] == [0, 1, 2]
        assert list(pipeline) == []
    assert pipeline.stats["frames"] == 3


def test_an_empty_recording_gives_no_results() -> None:
    with Pipeline(_segmenter(), ListSource(0)) as pipeline:
        assert list(pipeline) == []
    assert pipeline.stats["frames"] == 0 and pipeline.stats["fps"] == 0.0


# Threads and their ends


def test_the_source_is_read_by_one_named_thread() -> None:
    source = ListSource(5)
    with Pipeline(_segmenter(), source) as pipeline:
        list(pipeline)
    assert set(source.read_by) == {"rtda-capture"}


def test_close_ends_the_reader_and_closes_the_source_within_a_second() -> None:
    for policy in ("newest", "every"):
        source = ListSource(10**9, live=True, before=lambda number: time.sleep(0.0005))
        pipeline = Pipeline(_segmenter(), source, policy=policy)
        next(pipeline)
        start = time.monotonic()
        pipeline.close()
        assert time.monotonic() - start < 1.0
        assert source.closed.is_set()
        assert "rtda-capture" not in [thread.name for thread in threading.enumerate()]


def test_close_returns_though_the_driver_is_stuck(caplog: Any) -> None:
    release = threading.Event()
    source = ListSource(10, live=True, before=lambda number: number == 1 and release.wait(WAIT_S))
    pipeline = Pipeline(_segmenter(), source)
    next(pipeline)
    start = time.monotonic()
    pipeline.close()
    assert time.monotonic() - start < 1.5
    assert "does not return" in caplog.text
    assert not source.closed.is_set()  # nobody closes it under the driver's hands
    release.set()
    assert source.closed.wait(WAIT_S)


def test_close_may_be_called_again_and_ends_iteration() -> None:
    pipeline = Pipeline(_segmenter(), ListSource(100))
    next(pipeline)
    pipeline.close()
    pipeline.close()
    assert list(pipeline) == []


def test_close_before_the_first_frame_closes_the_source() -> None:
    source = ListSource(100)
    Pipeline(_segmenter(), source).close()
    assert source.closed.is_set() and not source.read_by


def test_leaving_the_loop_by_an_error_closes_everything() -> None:
    source, sink = ListSource(100), _ListSink()
    with pytest.raises(KeyboardInterrupt), Pipeline(_segmenter(), source, sinks=[sink]) as pipeline:
        for _ in pipeline:
            raise KeyboardInterrupt
    assert source.closed.wait(WAIT_S) and sink.closed == 1


# Errors


def test_a_reader_error_is_raised_in_the_loop_after_the_frames_before_it() -> None:
    error = CameraError("camera list is gone")
    source = ListSource(3, error=error)
    seen = []
    with Pipeline(_segmenter(), source) as pipeline, pytest.raises(CameraError) as caught:
        for result in pipeline:
            seen.append(result.sequence)
    assert caught.value is error
    assert seen == [0, 1, 2]


def test_any_error_of_the_reader_reaches_the_loop() -> None:
    with Pipeline(_segmenter(), ListSource(0, error=ZeroDivisionError())) as pipeline, pytest.raises(ZeroDivisionError):
        next(pipeline)


@pytest.mark.parametrize(("live", "kind"), [(True, CameraError), (False, SourceError)])
def test_a_silent_source_is_an_error_after_the_timeout(live: bool, kind: type, monkeypatch: Any) -> None:
    monkeypatch.setattr("rtda_runtime.pipeline._GRACE_S", 0.0)
    release = threading.Event()
    source = ListSource(5, live=live, before=lambda number: release.wait(WAIT_S))
    pipeline = Pipeline(_segmenter(), source, timeout_s=0.05)
    with pytest.raises(kind, match=r"list gave no frame for 0\.05 s"):
        next(pipeline)
    release.set()
    pipeline.close()


def test_an_engine_error_stops_the_loop() -> None:
    source = ListSource(100)
    segmenter = _segmenter()
    with Pipeline(segmenter, source) as pipeline:
        next(pipeline)
        segmenter.close()
        with pytest.raises(EngineError, match="closed"):
            next(pipeline)
    assert source.closed.wait(WAIT_S)


def test_a_sink_error_stops_the_loop() -> None:
    sink = _ListSink(error=FrameError("too large"))
    with Pipeline(_segmenter(), ListSource(9), sinks=[sink]) as pipeline, pytest.raises(FrameError, match="too large"):
        next(pipeline)
    assert sink.closed == 1


@pytest.mark.parametrize("settings", [{"policy": "latest"}, {"max_frames": 0}, {"timeout_s": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: Dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Pipeline(_segmenter(), ListSource(1), **settings)


# What it tells


def test_sinks_get_every_result_and_their_time_is_counted() -> None:
    first, second = _ListSink(), _ListSink()
    with Pipeline(_segmenter(), ListSource(4), sinks=[first, second]) as pipeline:
        results = list(pipeline)
    assert first.results == second.results == results
    assert pipeline.stats["stages"]["encode"]["mean"] == 1.5
    assert (first.closed, second.closed) == (1, 1)


def test_timing_has_capture_and_age() -> None:
    with Pipeline(_segmenter(), ListSource(3, clock=time.perf_counter_ns)) as pipeline:
        for result in pipeline:
            assert set(result.timing) == {"capture", "preprocess", "infer", "postprocess", "age"}
            assert result.timing["age"] >= result.timing["infer"]


def test_stats_are_plain_values_and_right() -> None:
    import json

    with Pipeline(_segmenter(), ListSource(7)) as pipeline:
        list(pipeline)
    stats = json.loads(json.dumps(pipeline.stats))
    assert (stats["frames"], stats["captured"], stats["dropped"]) == (7, 7, 0)
    assert (stats["policy"], stats["provider"], stats["source"]) == ("every", "cpu", "list")
    assert stats["fps"] == pytest.approx(7 / stats["seconds"])
    assert list(stats["stages"]) == ["capture", "preprocess", "infer", "postprocess", "age"]
    assert stats["stages"]["infer"]["count"] == 7


def test_warm_up_is_not_in_the_figures() -> None:
    runs: List[int] = []
    with Pipeline(_segmenter(lambda: runs.append(1)), ListSource(3)) as pipeline:
        list(pipeline)
    assert len(runs) == 4 and pipeline.stats["stages"]["infer"]["count"] == 3


# Opening


def test_open_takes_a_path_and_an_address(model_path: Path) -> None:
    with Pipeline.open(model_path, "test://bars?fps=0&size=96x64&frames=3", provider="cpu") as pipeline:
        results = list(pipeline)
    assert [result.mask.shape for result in results] == [(64, 96)] * 3
    with pytest.raises(EngineError, match="closed"):  # what it opened, it closed
        pipeline.segmenter.segment(results[0].frame)


def test_open_takes_a_spec_for_a_model_that_has_none(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", with_spec=False)
    with Pipeline.open(path, "test://bars?fps=0&size=96x64&frames=1", spec=tiny_spec()) as pipeline:
        assert next(pipeline).spec == tiny_spec()


def test_open_leaves_a_segmenter_of_the_caller_open(model_path: Path) -> None:
    with Segmenter.open(model_path) as segmenter:
        for _ in range(2):
            with Pipeline.open(segmenter, open_source("test://bars?fps=0&size=96x64&frames=2")) as pipeline:
                assert len(list(pipeline)) == 2


def test_open_closes_the_source_when_the_model_fails(tmp_path: Path) -> None:
    source = ListSource(3)
    with pytest.raises(Exception, match="gone"):
        Pipeline.open(tmp_path / "gone.onnx", source)
    assert source.closed.is_set()


def test_live_source_gives_newest_by_default(model_path: Path) -> None:
    with Pipeline.open(model_path, "test://bars?fps=200&size=96x64&frames=10") as pipeline:
        results = list(pipeline)
    assert pipeline.policy == "newest"
    assert len(results) + pipeline.stats["dropped"] == 10


def test_two_pipelines_in_one_process(model_path: Path) -> None:
    uri = "test://bars?fps=0&size=96x64&frames=5"
    with Pipeline.open(model_path, uri) as first, Pipeline.open(model_path, uri) as second:
        for one, two in zip(first, second):
            np.testing.assert_array_equal(one.mask, two.mask)


def test_memory_does_not_grow_with_the_frames() -> None:
    with Pipeline(_segmenter(), ListSource(300)) as pipeline:
        for _ in range(50):
            next(pipeline)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            next(pipeline)
        gc.collect()
        assert len(gc.get_objects()) - before < 100
