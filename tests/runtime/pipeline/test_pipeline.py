"""Which frames come, how a pipeline ends, what it tells and raises."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import FakeClock, ListSink, ListSource, NumpyEngine, numpy_segmenter
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import (
    CameraError,
    ConfigError,
    EngineError,
    RtdaError,
    SourceError,
    StaleFrameError,
)
from rtda_runtime import Pipeline, PipelineOptions, Segmenter, open_source
from rtda_runtime.pipeline.options import Patience
from rtda_runtime.pipeline.reader import RateLimit
from rtda_runtime.result import Result

# Which frames


def test_run_keeps_every_frame_of_a_recording_when_inference_is_slow() -> None:
    with Pipeline(numpy_segmenter(lambda: time.sleep(0.001)), ListSource(20)) as pipeline:
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
            at_end.wait(PATIENCE_S)

    with Pipeline(numpy_segmenter(infer_slowly), source) as pipeline:
        results = list(pipeline)
    assert pipeline.policy == "newest"
    assert len(results) <= 2  # the one that the engine was busy with, and the newest
    assert results[-1].sequence == 9
    stats = pipeline.stats
    assert results[-1].dropped == stats["dropped"] + stats["skipped"] == 10 - len(results)


@pytest.mark.parametrize("seed", range(5))
def test_every_captured_frame_is_given_or_counted_as_dropped(seed: int) -> None:
    pauses = np.random.default_rng(seed).random(200) * 0.001
    source = ListSource(60, live=True, before=lambda number: time.sleep(pauses[number]))
    with Pipeline(numpy_segmenter(lambda: time.sleep(pauses[seed])), source) as pipeline:
        results = list(pipeline)
    sequences = [result.sequence for result in results]
    assert sequences == sorted(set(sequences)) and sequences[-1] == 59
    # Before each result, exactly the frames that are missing from the sequence were dropped.
    assert [result.dropped for result in results] == [seen - index for index, seen in enumerate(sequences)]
    stats = pipeline.stats
    assert stats["captured"] == 60 == len(results) + stats["dropped"] + stats["skipped"]


def test_max_frames_ends_the_run() -> None:
    with Pipeline(numpy_segmenter(), ListSource(1000), max_frames=3) as pipeline:
        assert [result.sequence for result in pipeline] == [0, 1, 2]
        assert list(pipeline) == []
    assert pipeline.stats["frames"] == 3


def test_of_a_camera_max_frames_counts_what_the_loop_got_and_each_was_the_newest() -> None:
    source, seen = ListSource(10**6, live=True), []
    with Pipeline(numpy_segmenter(), source, max_frames=3) as pipeline:
        for result in pipeline:
            seen.append(result.sequence)
            since = pipeline.stats["frames"]
            wait_for(lambda: len(seen) == 3 or pipeline.stats["frames"] >= since + 3)  # noqa: B023, called here
        assert pipeline.join(PATIENCE_S) is True and pipeline.state == "ended"
    assert len(seen) == 3 and seen[1] - seen[0] >= 3 <= seen[2] - seen[1], "those in between were passed over"
    assert pipeline.stats["skipped"] > 0


def test_of_a_camera_max_frames_counts_what_was_segmented_where_nobody_loops() -> None:
    sink = ListSink()
    with Pipeline(numpy_segmenter(), ListSource(10**6, live=True), max_frames=3, sinks=[sink]) as pipeline:
        pipeline.join()
    assert len(sink.results) == pipeline.stats["frames"] == 3


def test_an_empty_recording_gives_no_results() -> None:
    with Pipeline(numpy_segmenter(), ListSource(0)) as pipeline:
        assert list(pipeline) == []
    assert pipeline.stats["frames"] == 0 and pipeline.stats["fps"] == 0.0


# Threads and their ends


def test_close_returns_though_the_driver_is_stuck(caplog: Any) -> None:
    release = threading.Event()
    source = ListSource(10, live=True, before=lambda number: number == 1 and release.wait(PATIENCE_S))
    pipeline = Pipeline(numpy_segmenter(), source, patience=Patience(stop_s=0.1))
    next(pipeline)
    pipeline.close()
    assert "does not return" in caplog.text
    assert not source.closed.is_set()  # nobody closes it under the driver's hands
    release.set()
    assert source.closed.wait(PATIENCE_S)


def test_close_may_be_called_again_and_ends_iteration() -> None:
    pipeline = Pipeline(numpy_segmenter(), ListSource(100))
    next(pipeline)
    pipeline.close()
    pipeline.close()
    assert list(pipeline) == []


def test_close_before_the_first_frame_closes_source_and_sinks() -> None:
    source, sink = ListSource(100), ListSink()
    Pipeline(numpy_segmenter(), source, sinks=[sink]).close()
    assert source.closed.is_set() and not source.read_by and sink.closed == 1 and sink.results == []


# Errors


def test_a_reader_error_is_raised_in_the_loop_after_the_frames_before_it() -> None:
    error = CameraError("camera list is gone")
    source = ListSource(3, error=error)
    seen = []
    with Pipeline(numpy_segmenter(), source) as pipeline, pytest.raises(CameraError) as caught:
        for result in pipeline:
            seen.append(result.sequence)
    assert caught.value is error
    assert seen == [0, 1, 2]


def test_any_error_of_the_reader_reaches_the_loop() -> None:
    with Pipeline(numpy_segmenter(), ListSource(0, error=ZeroDivisionError())) as pipeline, pytest.raises(
        ZeroDivisionError
    ):
        next(pipeline)


@pytest.mark.parametrize(("live", "kind"), [(True, CameraError), (False, SourceError)])
def test_a_silent_source_is_an_error_after_the_timeout(live: bool, kind: type) -> None:
    release = threading.Event()
    source = ListSource(5, live=live, before=lambda number: release.wait(PATIENCE_S))
    pipeline = Pipeline(numpy_segmenter(), source, timeout_s=0.05, patience=Patience(grace_s=0.0))
    with pytest.raises(kind, match=r"list gave no frame for 0\.05 s"):
        next(pipeline)
    release.set()
    pipeline.close()


def test_an_engine_error_stops_the_loop() -> None:
    source = ListSource(100)
    segmenter = numpy_segmenter()
    with Pipeline(segmenter, source) as pipeline:
        next(pipeline)
        segmenter.close()
        with pytest.raises(EngineError, match="closed"):
            for _ in pipeline:  # the results that were ready come first
                pass
    assert source.closed.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "wrong", [{"policy": "latest"}, {"max_frames": 0}, {"timeout_s": 0.0}, {"rate": 0.0}, {"max_age_ms": -1.0}]
)
def test_options_that_make_no_sense_are_refused(wrong: Dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PipelineOptions(**wrong)


def test_options_may_be_given_whole_by_their_names_and_both() -> None:
    options = PipelineOptions(policy="every", max_frames=1)
    with Pipeline(numpy_segmenter(), ListSource(9, live=True), options, max_frames=3) as pipeline:
        assert [result.sequence for result in pipeline] == [0, 1, 2]
    assert pipeline.options == PipelineOptions(policy="every", max_frames=3)
    with pytest.raises(TypeError, match="polcy"):
        Pipeline.open(numpy_segmenter(), ListSource(1), polcy="every")


def test_of_a_camera_a_loop_may_ask_for_each_result() -> None:
    with Pipeline(numpy_segmenter(), ListSource(10**6, live=True), each_result=True, max_frames=20) as pipeline:
        for result in pipeline:
            last = result
            time.sleep(0.001)  # the network is faster than the loop, and waits for it
    assert pipeline.policy == "newest" and pipeline.stats["frames"] == 20 and pipeline.stats["skipped"] == 0
    assert last.sequence == 19 + last.dropped


# What it tells


def test_sinks_get_every_result_and_their_time_is_counted() -> None:
    first, second = ListSink(), ListSink()
    with Pipeline(numpy_segmenter(), ListSource(40), sinks=[first, second]) as pipeline:
        results = list(pipeline)
    assert first.results == second.results == results
    assert set(first.written_by) == {"rtda-list"} and set(second.written_by) == {"rtda-list-2"}
    assert pipeline.stats["stages"]["encode"]["mean"] == 1.5
    assert (first.closed, second.closed) == (1, 1)


def test_stats_are_plain_values_and_right() -> None:
    import json

    with Pipeline(numpy_segmenter(), ListSource(7)) as pipeline:
        list(pipeline)
    stats = json.loads(json.dumps(pipeline.stats))
    assert (stats["frames"], stats["captured"], stats["dropped"]) == (7, 7, 0)
    assert (stats["policy"], stats["provider"], stats["source"]) == ("every", "cpu", "list")
    assert stats["fps"] == pytest.approx(7 / stats["seconds"])
    assert list(stats["stages"]) == ["capture", "preprocess", "infer", "postprocess", "age"]
    assert stats["stages"]["infer"]["count"] == 7


def test_warm_up_is_not_in_the_figures() -> None:
    runs: List[int] = []
    with Pipeline(numpy_segmenter(lambda: runs.append(1)), ListSource(3)) as pipeline:
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


def test_open_closes_source_and_sinks_when_the_rest_fails(tmp_path: Path, model_path: Path) -> None:
    for model, settings in ((tmp_path / "gone.onnx", {}), (model_path, {"policy": "oldest"})):
        source, sink = ListSource(3), ListSink()
        with pytest.raises(RtdaError, match=r"gone|oldest"):
            Pipeline.open(model, source, sinks=[sink], **settings)
        assert source.closed.is_set() and sink.closed == 1


def test_two_pipelines_in_one_process(model_path: Path) -> None:
    uri = "test://bars?fps=0&size=96x64&frames=5"
    with Pipeline.open(model_path, uri) as first, Pipeline.open(model_path, uri) as second:
        for one, two in zip(first, second):
            np.testing.assert_array_equal(one.mask, two.mask)


def test_memory_does_not_grow_with_the_frames() -> None:
    with Pipeline(numpy_segmenter(), ListSource(300)) as pipeline:
        for _ in range(50):
            next(pipeline)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            next(pipeline)
        gc.collect()
        assert len(gc.get_objects()) - before < 100


# Callback, join, latest, snapshot


def test_the_callback_gets_each_result_of_a_recording() -> None:
    seen: List[int] = []
    with Pipeline(numpy_segmenter(), ListSource(30), on_result=lambda result: seen.append(result.sequence)) as pipeline:
        assert pipeline.join() is True
    assert seen == list(range(30))


def test_an_error_of_the_callback_ends_the_pipeline_and_join_raises_it() -> None:
    source = ListSource(10**6, live=True)
    error = ZeroDivisionError("theirs")

    def fail(result: Result) -> None:
        raise error

    with Pipeline(numpy_segmenter(), source, on_result=fail) as pipeline:
        with pytest.raises(ZeroDivisionError) as caught:
            pipeline.join(PATIENCE_S)
        assert caught.value is error
    assert source.closed.wait(PATIENCE_S)


def test_an_error_of_the_callback_after_the_end_is_told(caplog: Any) -> None:
    results: List[Result] = []
    over = threading.Event()

    def fail_at_the_end(result: Result) -> None:
        assert over.wait(PATIENCE_S)
        raise ZeroDivisionError("theirs")

    with Pipeline(numpy_segmenter(), ListSource(1), on_result=fail_at_the_end) as pipeline:
        results += pipeline
        over.set()
    assert len(results) == 1 and pipeline.stats["sinks"]["callback"]["error"] == "theirs"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "sink callback stopped: theirs"
    ]
    with pytest.raises(ZeroDivisionError, match="theirs"):
        pipeline.join()


def test_a_sink_may_be_called_callback_too() -> None:
    sink = ListSink(name="callback")
    with Pipeline(numpy_segmenter(), ListSource(3), sinks=[sink], on_result=lambda result: None) as pipeline:
        pipeline.join()
    assert {name: told["written"] for name, told in pipeline.stats["sinks"].items()} == {"callback": 3, "callback-2": 3}


def test_the_callback_may_close_the_pipeline() -> None:
    pipeline = Pipeline(numpy_segmenter(), ListSource(10**6, live=True), on_result=lambda result: pipeline.close())
    assert pipeline.join(PATIENCE_S) is True


def test_join_tells_that_it_is_not_over_yet() -> None:
    release = threading.Event()
    with Pipeline(
        numpy_segmenter(), ListSource(1, before=lambda number: number and release.wait(PATIENCE_S))
    ) as pipeline:
        assert pipeline.join(0.01) is False
        release.set()
        assert pipeline.join(PATIENCE_S) is True


def test_latest_gives_the_newest_result_and_its_age_counts_on() -> None:
    clock, release = FakeClock(), threading.Event()
    source = ListSource(3, live=True, before=lambda number: number == 3 and release.wait(PATIENCE_S), clock=clock)
    with Pipeline(numpy_segmenter(), source, policy="every", clock=clock) as pipeline:
        pipeline.start()
        wait_for(lambda: pipeline.stats["frames"] == 3)
        assert pipeline.latest().sequence == pipeline.latest(max_age_ms=100).sequence == 2
        clock.sleep(0.2)
        assert pipeline.latest().sequence == 2
        with pytest.raises(StaleFrameError, match="200 ms old, the limit is 100 ms"):
            pipeline.latest(max_age_ms=100)
        release.set()


def test_latest_before_the_first_result_does_not_wait() -> None:
    release = threading.Event()
    with Pipeline(numpy_segmenter(), ListSource(1, before=lambda number: release.wait(PATIENCE_S))) as pipeline:
        with pytest.raises(StaleFrameError, match="no result yet"):
            pipeline.latest()
        with pytest.raises(StaleFrameError, match="no result yet"):
            pipeline.snapshot()
        release.set()
        wait_for(lambda: pipeline.stats["frames"] == 1)
        assert pipeline.latest().sequence == 0, "asking started it"


def test_after_an_error_there_is_no_newest_result_and_the_state_is_lost() -> None:
    with Pipeline(numpy_segmenter(), ListSource(3, error=CameraError("pulled out"))) as pipeline:
        with pytest.raises(CameraError):
            pipeline.join(PATIENCE_S)
        for _ in range(2):  # before close() and after
            with pytest.raises(StaleFrameError, match="no results any more") as caught:
                pipeline.latest()
            assert caught.value.why == "pulled out" and isinstance(caught.value.__cause__, CameraError)
            assert pipeline.stats["state"] == "lost"
            pipeline.close()


def test_after_an_end_in_order_the_state_is_ended_and_the_last_result_is_there() -> None:
    with Pipeline(numpy_segmenter(), ListSource(3, clock=lambda: 0)) as pipeline:
        assert pipeline.state == "live"
        pipeline.join(PATIENCE_S)
        assert pipeline.state == pipeline.stats["state"] == "ended" and pipeline.latest().sequence == 2
        with pytest.raises(StaleFrameError) as caught:
            pipeline.latest(max_age_ms=1)
        assert caught.value.why == "the pipeline has ended"
    closed = Pipeline(numpy_segmenter(), ListSource(3, live=True))
    closed.close()
    assert closed.state == "ended"
    with pytest.raises(StaleFrameError, match="has given no result"):
        closed.latest()


# States of the source


class _StateSource(ListSource):
    """A source whose state the test sets."""

    now = "live"

    @property
    def state(self) -> str:
        return self.now


def test_a_lost_camera_is_waited_for() -> None:
    back = threading.Event()
    asked: List[str] = []

    class Lost(ListSource):
        @property
        def state(self) -> str:  # asked for by the first result, and whenever no frame came in time
            asked.append("live" if back.is_set() else "lost")
            if len(asked) == 4:
                back.set()
            return asked[-1]

    source = Lost(2, live=True, before=lambda number: number == 1 and back.wait(PATIENCE_S))
    options = PipelineOptions(policy="every", timeout_s=0.01)
    with Pipeline(numpy_segmenter(), source, options, patience=Patience(grace_s=0.0)) as pipeline:
        pipeline.join(PATIENCE_S)
    assert pipeline.stats["frames"] == 2 and asked[:4] == ["lost"] * 4, "waited longer than the timeout, and no error"


def test_changes_of_state_are_told_to_whoever_asked_and_to_sinks() -> None:
    sink, source = ListSink(), _StateSource(1)
    before: List[Tuple[str, str]] = []
    told: List[Tuple[str, str]] = []
    source.on_state = lambda *change: before.append(change)
    with Pipeline(numpy_segmenter(), source, sinks=[sink], on_state=lambda *change: told.append(change)) as pipeline:
        source.now = "lost"
        source.on_state("lost", "the camera is gone")
        assert pipeline.state == pipeline.stats["state"] == "lost" and pipeline.stats["losses"] == 0
    assert before == told == sink.states == [("lost", "the camera is gone")], "the source's own listener, too"


def test_results_above_the_age_limit_are_counted_and_given_to_nobody() -> None:
    clock, sink = FakeClock(), ListSink()
    slow = {2, 3}
    runs: List[int] = []

    def infer() -> None:
        runs.append(1)  # the first is the warm-up
        clock.sleep(0.2 if len(runs) - 2 in slow else 0.01)

    source = ListSource(5, clock=clock)
    states: List[str] = []
    engine = NumpyEngine(before=infer)
    segmenter = Segmenter(engine, clock=clock)
    with Pipeline(segmenter, source, sinks=[sink], max_age_ms=100, clock=clock) as pipeline:
        for result in pipeline:
            states.append(pipeline.state)
            assert result.timing["age"] <= 100
    stats = pipeline.stats
    assert stats["frames"] + stats["too_old"] == 5 and stats["too_old"] >= 2
    assert len(sink.results) == stats["frames"] == len(states)


# Rate


def test_the_frames_passed_over_are_counted() -> None:
    clock = FakeClock()
    source = ListSource(90, live=True, before=lambda number: clock.sleep(1 / 90), clock=clock)
    with Pipeline(numpy_segmenter(), source, policy="every", rate=30, clock=clock) as pipeline:
        assert len(list(pipeline)) == 30
    assert pipeline.stats["captured"] == 90 and pipeline.stats["dropped"] == 60


def test_a_recording_is_read_at_the_rate() -> None:
    clock = FakeClock()
    waits: List[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: Any = None) -> bool:
            waits.append(round(timeout, 3))
            clock.sleep(timeout)
            return False

    limit = RateLimit(10.0, clock)
    for spent_s in (0.0, 0.03, 0.0, 0.35, 0.0, 0.0):
        limit.wait(Stop())
        clock.sleep(spent_s)
    # at once; 100 ms; the rest of 100 ms after 30 of work; 100 ms; at once, being late; no burst afterwards
    assert waits == [0.1, 0.07, 0.1, 0.1]


@pytest.mark.parametrize(("camera_hz", "asked_hz", "share"), [(60, 30, 2), (30, 30, 1), (90, 30, 3), (20, 30, 1)])
def test_of_a_camera_the_frames_that_come_too_early_are_passed_over(camera_hz: int, asked_hz: int, share: int) -> None:
    jitter = np.random.default_rng(0).uniform(-0.05, 0.05, 300) / camera_hz
    limit = RateLimit(asked_hz, lambda: 0)
    taken = [limit.is_due(round(1e9 * (number / camera_hz + late))) for number, late in enumerate(jitter)]
    assert sum(taken) == pytest.approx(300 / share, abs=2)
