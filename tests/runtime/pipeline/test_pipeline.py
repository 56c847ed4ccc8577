from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Tuple

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import FakeClock, ListSource, NumpyEngine
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import (
    CameraError,
    ConfigError,
    EngineError,
    FrameError,
    RtdaError,
    SourceError,
    StaleFrameError,
)
from rtda_runtime import Pipeline, PipelineOptions, Segmenter, SegmenterPool, open_source
from rtda_runtime.pipeline.options import Patience
from rtda_runtime.pipeline.sink_thread import SinkThread
from rtda_runtime.result import Result
from rtda_runtime.sinks import Sink


def _segmenter(before: Callable[[], Any] = lambda: None) -> Segmenter:
    return Segmenter(NumpyEngine(before=before))


class _ListSink(Sink):
    """Keeps everything; ``before`` is called at the start of each write, with the result."""

    name = "list"
    keeps = True

    def __init__(self, before: Callable[[Result], Any] = lambda result: None, name: str = "list") -> None:
        self.name = name
        self.results: List[Result] = []
        self.written_by: List[str] = []
        self.closed = 0
        self.states: List[Tuple[str, str]] = []
        self._before = before

    def write(self, result: Result) -> Mapping[str, float]:
        self.written_by.append(threading.current_thread().name)
        self._before(result)
        self.results.append(result)
        return {"encode": 1.5}

    def on_state(self, state: str, sentence: str) -> None:
        self.states.append((state, sentence))

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
            at_end.wait(PATIENCE_S)

    with Pipeline(_segmenter(infer_slowly), source) as pipeline:
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
    with Pipeline(_segmenter(lambda: time.sleep(pauses[seed])), source) as pipeline:
        results = list(pipeline)
    sequences = [result.sequence for result in results]
    assert sequences == sorted(set(sequences)) and sequences[-1] == 59
    # Before each result, exactly the frames that are missing from the sequence were dropped.
    assert [result.dropped for result in results] == [seen - index for index, seen in enumerate(sequences)]
    stats = pipeline.stats
    assert stats["captured"] == 60 == len(results) + stats["dropped"] + stats["skipped"]


def test_policy_may_be_chosen() -> None:
    with Pipeline(_segmenter(lambda: time.sleep(0.001)), ListSource(10, live=True), policy="every") as pipeline:
        assert [result.sequence for result in pipeline] == list(range(10))


def test_max_frames_ends_the_run() -> None:
    with Pipeline(_segmenter(), ListSource(1000), max_frames=3) as pipeline:
        assert [result.sequence for result in pipeline] == [0, 1, 2]
        assert list(pipeline) == []
    assert pipeline.stats["frames"] == 3


def test_of_a_camera_max_frames_counts_what_the_loop_got_and_each_was_the_newest() -> None:
    source, seen = ListSource(10**6, live=True), []
    with Pipeline(_segmenter(), source, max_frames=3) as pipeline:
        for result in pipeline:
            seen.append(result.sequence)
            since = pipeline.stats["frames"]
            _wait_for(lambda: len(seen) == 3 or pipeline.stats["frames"] >= since + 3)  # noqa: B023, called here
        assert pipeline.join(PATIENCE_S) is True and pipeline.state == "ended"
    assert len(seen) == 3 and seen[1] - seen[0] >= 3 <= seen[2] - seen[1], "those in between were passed over"
    assert pipeline.stats["skipped"] > 0


def test_of_a_camera_max_frames_counts_what_was_segmented_where_nobody_loops() -> None:
    sink = _ListSink()
    with Pipeline(_segmenter(), ListSource(10**6, live=True), max_frames=3, sinks=[sink]) as pipeline:
        pipeline.join()
    assert len(sink.results) == pipeline.stats["frames"] == 3


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


def test_close_ends_the_reader_and_closes_the_source() -> None:
    for policy in ("newest", "every"):
        source = ListSource(10**9, live=True, before=lambda number: time.sleep(0.0005))
        pipeline = Pipeline(_segmenter(), source, policy=policy)
        next(pipeline)
        pipeline.close()
        assert source.closed.is_set()
        assert "rtda-capture" not in [thread.name for thread in threading.enumerate()]


def test_close_returns_though_the_driver_is_stuck(caplog: Any) -> None:
    release = threading.Event()
    source = ListSource(10, live=True, before=lambda number: number == 1 and release.wait(PATIENCE_S))
    pipeline = Pipeline(_segmenter(), source, patience=Patience(stop_s=0.1))
    next(pipeline)
    pipeline.close()
    assert "does not return" in caplog.text
    assert not source.closed.is_set()  # nobody closes it under the driver's hands
    release.set()
    assert source.closed.wait(PATIENCE_S)


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
    assert source.closed.wait(PATIENCE_S) and sink.closed == 1


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
def test_a_silent_source_is_an_error_after_the_timeout(live: bool, kind: type) -> None:
    release = threading.Event()
    source = ListSource(5, live=live, before=lambda number: release.wait(PATIENCE_S))
    pipeline = Pipeline(_segmenter(), source, timeout_s=0.05, patience=Patience(grace_s=0.0))
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
    with Pipeline(_segmenter(), ListSource(9, live=True), options, max_frames=3) as pipeline:
        assert [result.sequence for result in pipeline] == [0, 1, 2]
    assert pipeline.options == PipelineOptions(policy="every", max_frames=3)
    with pytest.raises(TypeError, match="polcy"):
        Pipeline.open(_segmenter(), ListSource(1), polcy="every")


def test_of_a_camera_a_loop_may_ask_for_each_result() -> None:
    with Pipeline(_segmenter(), ListSource(10**6, live=True), each_result=True, max_frames=20) as pipeline:
        for result in pipeline:
            last = result
            time.sleep(0.001)  # the network is faster than the loop, and waits for it
    assert pipeline.policy == "newest" and pipeline.stats["frames"] == 20 and pipeline.stats["skipped"] == 0
    assert last.sequence == 19 + last.dropped


# What it tells


def test_sinks_get_every_result_and_their_time_is_counted() -> None:
    first, second = _ListSink(), _ListSink()
    with Pipeline(_segmenter(), ListSource(40), sinks=[first, second]) as pipeline:
        results = list(pipeline)
    assert first.results == second.results == results
    assert set(first.written_by) == {"rtda-list"} and set(second.written_by) == {"rtda-list-2"}
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


def test_open_closes_source_and_sinks_when_the_rest_fails(tmp_path: Path, model_path: Path) -> None:
    for model, settings in ((tmp_path / "gone.onnx", {}), (model_path, {"policy": "oldest"})):
        source, sink = ListSource(3), _ListSink()
        with pytest.raises(RtdaError, match=r"gone|oldest"):
            Pipeline.open(model, source, sinks=[sink], **settings)
        assert source.closed.is_set() and sink.closed == 1


def test_live_source_gives_newest_by_default(model_path: Path) -> None:
    with Pipeline.open(model_path, "test://bars?fps=200&size=96x64&frames=10") as pipeline:
        results = list(pipeline)
    assert pipeline.policy == "newest"
    assert len(results) + pipeline.stats["dropped"] + pipeline.stats["skipped"] == 10


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


# Sinks, each on its own thread


def test_a_sink_that_keeps_gets_every_frame_of_a_recording_however_slow_it_is() -> None:
    sink = _ListSink(before=lambda result: time.sleep(0.002))
    with Pipeline(_segmenter(), ListSource(40), sinks=[sink]) as pipeline:
        pipeline.join()
    assert [result.sequence for result in sink.results] == list(range(40))
    assert pipeline.stats["sinks"]["list"]["written"] == 40 and pipeline.stats["sinks"]["list"]["dropped"] == 0


@pytest.mark.parametrize(("keeps", "policy"), [(False, "every"), (False, "newest"), (True, "newest")])
def test_a_slow_sink_drops_its_own_frames_and_holds_nobody_up(keeps: bool, policy: str) -> None:
    room = 30 if keeps else 1  # what waits for a sink that keeps everything evens out slow frames
    at_end = threading.Event()
    slow, fast = _ListSink(before=lambda result: at_end.wait(PATIENCE_S)), _ListSink(name="fast")
    slow.keeps = keeps
    with Pipeline(_segmenter(), ListSource(100), policy=policy, sinks=[slow, fast]) as pipeline:
        results = list(pipeline)
        given = pipeline.stats["frames"]
        at_end.set()
    assert results[-1].sequence == 99, "the loop came to its end though the sink had not taken its first"
    stats = pipeline.stats["sinks"]
    assert stats["list"]["written"] + stats["list"]["dropped"] == given
    assert stats["list"]["dropped"] >= given - room - 2 and slow.results[-1].sequence == 99
    assert stats["list"]["written"] == len(slow.results)


def test_a_sink_that_fails_stops_alone(caplog: Any) -> None:
    def fail(result: Result) -> None:
        if result.sequence == 3:
            raise FrameError("too large")

    failing, well = _ListSink(before=fail), _ListSink(name="well")
    with Pipeline(_segmenter(), ListSource(20), sinks=[failing, well]) as pipeline:
        assert len(list(pipeline)) == 20
    assert len(well.results) == 20 and len(failing.results) == 3
    assert (failing.closed, well.closed) == (1, 1)
    stats = pipeline.stats["sinks"]
    assert (stats["list"]["error"], stats["well"]["error"]) == ("too large", None)
    assert [record.getMessage() for record in caplog.records] == ["sink list stopped: too large"], "told once"
    assert isinstance(pipeline.sink_errors["list"], FrameError) and list(pipeline.sink_errors) == ["list"]


def test_what_a_sink_fails_with_at_its_end_is_told_too(caplog: Any) -> None:
    class FullDisk(_ListSink):
        def close(self) -> None:
            raise FrameError("no room for the index")

    with Pipeline(_segmenter(), ListSource(2), sinks=[FullDisk()]) as pipeline:
        list(pipeline)
    assert pipeline.stats["sinks"]["list"]["error"] == "no room for the index"


def test_what_sinks_were_given_is_written_before_they_are_closed() -> None:
    sink = _ListSink(before=lambda result: time.sleep(0.002))
    pipeline = Pipeline(_segmenter(), ListSource(10**6), sinks=[sink])
    next(pipeline)
    pipeline.close()
    assert [result.sequence for result in sink.results] == list(range(pipeline.stats["frames"]))
    assert sink.closed == 1


def test_whoever_stops_a_camera_does_not_wait_for_a_slow_sink_to_write_all_it_was_given() -> None:
    began, release = threading.Event(), threading.Event()

    def stick(result: Result) -> None:
        began.set()
        release.wait(PATIENCE_S)

    sink = _ListSink(before=stick)
    patience = Patience(stop_s=PATIENCE_S, hurry_s=0.0)
    source = ListSource(10**6, live=True)
    pipeline = Pipeline(_segmenter(), source, policy="newest", sinks=[sink], patience=patience)
    pipeline.start()
    _wait_for(lambda: began.is_set() and pipeline.stats["frames"] > 10)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    assert source.closed.wait(PATIENCE_S)  # close() has told every thread
    release.set()
    closing.join(PATIENCE_S)
    stats = pipeline.stats["sinks"]["list"]
    assert stats["written"] == 1 and sink.closed == 1
    assert stats["written"] + stats["dropped"] == pipeline.stats["frames"], "what was not written is counted"


def test_at_the_end_of_a_source_everything_is_written_however_long_that_takes() -> None:
    sink = _ListSink(before=lambda result: time.sleep(0.01))
    patience, options = Patience(stop_s=PATIENCE_S, hurry_s=0.0), PipelineOptions(policy="newest", max_frames=9)
    with Pipeline(_segmenter(), ListSource(9), options, sinks=[sink], patience=patience) as pipeline:
        for _ in pipeline:
            pass
    stats = pipeline.stats
    assert stats["sinks"]["list"]["written"] == stats["frames"] > 0 and stats["sinks"]["list"]["dropped"] == 0


def test_close_returns_though_a_sink_is_stuck(caplog: Any) -> None:
    release = threading.Event()
    sink = _ListSink(before=lambda result: release.wait(PATIENCE_S))
    sink.keeps = False
    pipeline = Pipeline(_segmenter(), ListSource(10**6), sinks=[sink], patience=Patience(stop_s=0.1))
    next(pipeline)
    pipeline.close()
    assert "sink list does not return" in caplog.text and sink.closed == 0
    release.set()


def test_sinks_of_a_pipeline_that_never_ran_are_closed() -> None:
    sink = _ListSink()
    Pipeline(_segmenter(), ListSource(3), sinks=[sink]).close()
    assert sink.closed == 1 and sink.results == []


@pytest.mark.parametrize("started", range(4))
def test_ctrl_c_between_the_starts_of_two_threads_leaves_nothing_open(started: int, monkeypatch: Any) -> None:
    before, count = set(threading.enumerate()), [0]
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if count[0] == started:
            raise KeyboardInterrupt
        count[0] += 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    source, sinks = ListSource(10**6, live=True), [_ListSink(name="a"), _ListSink(name="b")]
    with pytest.raises(KeyboardInterrupt), Pipeline(_segmenter(), source, sinks=sinks) as pipeline:
        pipeline.start()
    assert source.closed.wait(PATIENCE_S) and [sink.closed for sink in sinks] == [1, 1]
    assert set(threading.enumerate()) <= before


class _Film(_ListSink):
    """Its end takes until the test lets it; ``finishing`` is set when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.finishing, self.finished = threading.Event(), threading.Event()

    def close(self) -> None:
        self.finishing.set()
        assert self.finished.wait(PATIENCE_S)
        super().close()


def test_a_file_is_waited_for_however_long_it_needs_to_be_finished_and_by_whoever_closes() -> None:
    film = _Film()
    pipeline = Pipeline(_segmenter(), ListSource(3), sinks=[film], patience=Patience(stop_s=0.0, stuck_s=0.0))
    pipeline.start()
    assert film.finishing.wait(PATIENCE_S)
    closing = [threading.Thread(target=pipeline.close) for _ in range(2)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(0.5)
        assert thread.is_alive(), "the film is not finished yet"
    film.finished.set()
    for thread in closing:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert film.closed == 1


def test_who_stops_the_stop_does_not_wait_for_the_file(monkeypatch: Any, caplog: Any) -> None:
    film = _Film()
    pipeline = Pipeline(_segmenter(), ListSource(3), sinks=[film], patience=Patience(stop_s=0.0))
    pipeline.start()
    assert film.finishing.wait(PATIENCE_S)

    def interrupted(thread: SinkThread, stuck_s: float) -> bool:
        raise InterruptedError

    monkeypatch.setattr(SinkThread, "await_file", interrupted)
    with pytest.raises(InterruptedError):
        pipeline.close()
    pipeline.close()
    assert "sink list does not return" in caplog.text and film.closed == 0
    film.finished.set()
    _wait_for(lambda: film.closed == 1)


def test_a_file_that_is_stuck_in_a_result_is_left_behind(caplog: Any) -> None:
    release = threading.Event()
    stuck = _ListSink(before=lambda result: release.wait(PATIENCE_S))
    pipeline = Pipeline(_segmenter(), ListSource(3), sinks=[stuck], patience=Patience(stuck_s=0.0))
    next(pipeline)
    pipeline.close()
    assert "sink list does not return" in caplog.text
    release.set()


@pytest.mark.parametrize("called", [True, False])
def test_sys_exit_in_a_callback_or_a_sink_stalls_nothing(called: bool) -> None:
    def leave(result: Result) -> None:
        sys.exit(3)

    sink = _ListSink(before=lambda result: None if called else leave(result))
    source = ListSource(10**6 if called else 50)
    with Pipeline(_segmenter(), source, sinks=[sink], on_result=leave if called else None) as pipeline:
        if called:
            with pytest.raises(SystemExit, match="3"):
                pipeline.join(PATIENCE_S)
        else:
            assert pipeline.join(PATIENCE_S) is True
    assert sink.closed == 1
    assert isinstance(pipeline.sink_errors["callback" if called else "list"], SystemExit)


# Threads


def test_every_thread_has_a_name_that_the_kernel_shows() -> None:
    names: Dict[str, str] = {}

    def note(*_: Any) -> None:
        own = threading.current_thread()
        names[own.name] = Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()

    sink, source = _ListSink(before=note), ListSource(3, before=note)
    with Pipeline(_segmenter(note), source, sinks=[sink], on_result=note) as pipeline:
        pipeline.join()
    assert names == {name: name[:15] for name in ("rtda-capture", "rtda-infer", "rtda-list", "rtda-callback")}


def test_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    for end in ("source", "close", "error"):
        frames = {"source": 5, "close": 10**6, "error": 3}[end]
        source = ListSource(frames, live=True, error=CameraError("gone"))
        pipeline = Pipeline(_segmenter(), source, sinks=[_ListSink()], on_result=lambda result: None)
        with pipeline, contextlib.suppress(CameraError):
            next(pipeline)
            if end != "close":
                pipeline.join()
        assert set(threading.enumerate()) <= before, end
        assert pipeline.stats["threads"] == [] and source.closed.is_set()


# Callback, join, latest, snapshot


def test_the_callback_gets_each_result_of_a_recording() -> None:
    seen: List[int] = []
    with Pipeline(_segmenter(), ListSource(30), on_result=lambda result: seen.append(result.sequence)) as pipeline:
        assert pipeline.join() is True
    assert seen == list(range(30))


def test_an_error_of_the_callback_ends_the_pipeline_and_join_raises_it() -> None:
    source = ListSource(10**6, live=True)
    error = ZeroDivisionError("theirs")

    def fail(result: Result) -> None:
        raise error

    with Pipeline(_segmenter(), source, on_result=fail) as pipeline:
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

    with Pipeline(_segmenter(), ListSource(1), on_result=fail_at_the_end) as pipeline:
        results += pipeline
        over.set()
    assert len(results) == 1 and pipeline.stats["sinks"]["callback"]["error"] == "theirs"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "sink callback stopped: theirs"
    ]
    with pytest.raises(ZeroDivisionError, match="theirs"):
        pipeline.join()


def test_a_sink_may_be_called_callback_too() -> None:
    sink = _ListSink(name="callback")
    with Pipeline(_segmenter(), ListSource(3), sinks=[sink], on_result=lambda result: None) as pipeline:
        pipeline.join()
    assert {name: told["written"] for name, told in pipeline.stats["sinks"].items()} == {"callback": 3, "callback-2": 3}


def test_the_callback_may_close_the_pipeline() -> None:
    pipeline = Pipeline(_segmenter(), ListSource(10**6, live=True), on_result=lambda result: pipeline.close())
    assert pipeline.join(PATIENCE_S) is True


def test_join_tells_that_it_is_not_over_yet() -> None:
    release = threading.Event()
    with Pipeline(_segmenter(), ListSource(1, before=lambda number: number and release.wait(PATIENCE_S))) as pipeline:
        assert pipeline.join(0.01) is False
        release.set()
        assert pipeline.join(PATIENCE_S) is True


def test_join_raises_what_the_source_ended_with() -> None:
    with Pipeline(_segmenter(), ListSource(2, error=CameraError("gone"))) as pipeline, pytest.raises(
        CameraError, match="gone"
    ):
        pipeline.join(PATIENCE_S)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.001)


def test_latest_gives_the_newest_result_and_its_age_counts_on() -> None:
    clock, release = FakeClock(), threading.Event()
    source = ListSource(3, live=True, before=lambda number: number == 3 and release.wait(PATIENCE_S), clock=clock)
    with Pipeline(_segmenter(), source, policy="every", clock=clock) as pipeline:
        pipeline.start()
        _wait_for(lambda: pipeline.stats["frames"] == 3)
        assert pipeline.latest().sequence == pipeline.latest(max_age_ms=100).sequence == 2
        clock.sleep(0.2)
        assert pipeline.latest().sequence == 2
        with pytest.raises(StaleFrameError, match="200 ms old, the limit is 100 ms"):
            pipeline.latest(max_age_ms=100)
        release.set()


def test_latest_before_the_first_result_does_not_wait() -> None:
    release = threading.Event()
    with Pipeline(_segmenter(), ListSource(1, before=lambda number: release.wait(PATIENCE_S))) as pipeline:
        with pytest.raises(StaleFrameError, match="no result yet"):
            pipeline.latest()
        with pytest.raises(StaleFrameError, match="no result yet"):
            pipeline.snapshot()
        release.set()
        _wait_for(lambda: pipeline.stats["frames"] == 1)
        assert pipeline.latest().sequence == 0, "asking started it"


def test_latest_says_why_there_is_nothing_newer() -> None:
    with Pipeline(_segmenter(), ListSource(1, error=CameraError("pulled out"), clock=lambda: 0)) as pipeline:
        with pytest.raises(CameraError):
            pipeline.join(PATIENCE_S)
        with pytest.raises(StaleFrameError) as caught:
            pipeline.latest(max_age_ms=1)
    assert caught.value.why == "pulled out" and isinstance(caught.value.__cause__, CameraError)


def test_after_an_error_there_is_no_newest_result_and_the_state_is_lost() -> None:
    with Pipeline(_segmenter(), ListSource(3, error=CameraError("pulled out"))) as pipeline:
        with pytest.raises(CameraError):
            pipeline.join(PATIENCE_S)
        for _ in range(2):  # before close() and after
            with pytest.raises(StaleFrameError, match="no results any more") as caught:
                pipeline.latest()
            assert caught.value.why == "pulled out" and pipeline.stats["state"] == "lost"
            pipeline.close()


def test_after_an_end_in_order_the_state_is_ended_and_the_last_result_is_there() -> None:
    with Pipeline(_segmenter(), ListSource(3, clock=lambda: 0)) as pipeline:
        assert pipeline.state == "live"
        pipeline.join(PATIENCE_S)
        assert pipeline.state == pipeline.stats["state"] == "ended" and pipeline.latest().sequence == 2
        with pytest.raises(StaleFrameError) as caught:
            pipeline.latest(max_age_ms=1)
        assert caught.value.why == "the pipeline has ended"
    closed = Pipeline(_segmenter(), ListSource(3, live=True))
    closed.close()
    assert closed.state == "ended"
    with pytest.raises(StaleFrameError, match="has given no result"):
        closed.latest()


# Who leaves the loop


def test_after_the_loop_is_left_the_pipeline_goes_on_by_itself() -> None:
    with Pipeline(_segmenter(), ListSource(50)) as pipeline:
        for result in pipeline:
            if result.sequence == 3:
                break
        _wait_for(lambda: pipeline.stats["frames"] == 50)
        assert pipeline.join(PATIENCE_S) is True and list(pipeline) == []


def test_a_loop_of_two_that_is_left_does_not_end_the_other() -> None:
    with Pipeline(_segmenter(), ListSource(50)) as pipeline:
        seen = [next(pipeline).sequence]
        for result in pipeline:
            seen.append(result.sequence)
            if result.sequence == 3:
                for inner in pipeline:
                    seen.append(inner.sequence)
                    break
    assert seen == list(range(50))


def test_an_event_loop_that_is_left_holds_nobody_up() -> None:
    async def use() -> bool:
        with Pipeline(_segmenter(), ListSource(50)) as pipeline:
            async for _ in pipeline.aiter():
                break
            return pipeline.join(PATIENCE_S)  # no turn of the event loop in between

    assert asyncio.run(use()) is True


@pytest.mark.parametrize("ask", [lambda pipeline: pipeline.join(0.0), lambda pipeline: pipeline.latest()])
def test_after_one_result_was_taken_join_and_latest_wait_for_nobody(ask: Callable[[Pipeline], Any]) -> None:
    with Pipeline(_segmenter(), ListSource(50)) as pipeline:
        assert [next(pipeline).sequence, next(pipeline).sequence] == [0, 1], "each, while nothing else is asked for"
        ask(pipeline)
        _wait_for(lambda: pipeline.stats["frames"] == 50)


def test_a_snapshot_is_a_copy() -> None:
    with Pipeline(_segmenter(), ListSource(1)) as pipeline:
        pipeline.join()
        kept = pipeline.snapshot()
        assert not np.shares_memory(kept.mask, pipeline.latest().mask)


# Event loops


def test_an_event_loop_gets_every_result_and_is_never_blocked(monkeypatch: Any) -> None:
    monkeypatch.setattr("rtda_runtime.pipeline.loops.WAKE_S", 60.0)  # it is woken, it does not look again and again
    turns: List[int] = []

    async def use() -> List[int]:
        async def count() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        with Pipeline(_segmenter(lambda: time.sleep(0.002)), ListSource(20)) as pipeline:
            seen = [result.sequence async for result in pipeline.aiter()]
        counting.cancel()
        return seen

    assert asyncio.run(asyncio.wait_for(use(), PATIENCE_S)) == list(range(20))
    assert len(turns) > 20, "the loop had its turns between the results"


def test_an_event_loop_gets_the_error_after_the_results() -> None:
    async def use() -> List[int]:
        seen = []
        source = ListSource(3, error=CameraError("gone"))
        with Pipeline(_segmenter(), source) as pipeline, pytest.raises(CameraError, match="gone"):
            async for result in pipeline.aiter():
                seen.append(result.sequence)
        return seen

    assert asyncio.run(use()) == [0, 1, 2]


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
    with Pipeline(_segmenter(), source, options, patience=Patience(grace_s=0.0)) as pipeline:
        pipeline.join(PATIENCE_S)
    assert pipeline.stats["frames"] == 2 and asked[:4] == ["lost"] * 4, "waited longer than the timeout, and no error"


def test_changes_of_state_are_told_to_whoever_asked_and_to_sinks() -> None:
    sink, source = _ListSink(), _StateSource(1)
    before: List[Tuple[str, str]] = []
    told: List[Tuple[str, str]] = []
    source.on_state = lambda *change: before.append(change)
    with Pipeline(_segmenter(), source, sinks=[sink], on_state=lambda *change: told.append(change)) as pipeline:
        source.now = "lost"
        source.on_state("lost", "the camera is gone")
        assert pipeline.state == pipeline.stats["state"] == "lost" and pipeline.stats["losses"] == 0
    assert before == told == sink.states == [("lost", "the camera is gone")], "the source's own listener, too"


def test_results_above_the_age_limit_are_counted_and_given_to_nobody() -> None:
    clock, sink = FakeClock(), _ListSink()
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
    with Pipeline(_segmenter(), source, policy="every", rate=30, clock=clock) as pipeline:
        assert len(list(pipeline)) == 30
    assert pipeline.stats["captured"] == 90 and pipeline.stats["dropped"] == 60


# Two networks


def test_two_networks_see_the_same_frames(tmp_path: Path) -> None:
    first, second = (write_model(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    uri = "test://bars?fps=0&size=96x64&frames=4"
    with Pipeline.open(first, uri, compare=second, threads=1) as pipeline:
        results = list(pipeline)
    with Segmenter.open(second, threads=1) as alone:
        for result in results:
            assert result.compared is not None and (result.compared != result.mask).any()
            np.testing.assert_array_equal(result.compared, alone.segment(result.frame).mask)
            assert result.timing["age"] >= result.timing["compare"] > 0


def test_networks_of_other_classes_are_not_compared(model_path: Path, tmp_path: Path) -> None:
    other = tiny_spec(class_names=("a", "b", "c", "d", "e"))
    path = write_model(tmp_path / "other.onnx", other)
    source = ListSource(3)
    with pytest.raises(ConfigError, match="different classes"):
        Pipeline.open(model_path, source, compare=path)
    assert source.closed.is_set()


# Several frames in flight, several pipelines on one network


def _pool(count: int = 2, before: Callable[[], Any] = lambda: None) -> SegmenterPool:
    return SegmenterPool([Segmenter(NumpyEngine(before=before)) for _ in range(count)])


class _Together:
    """Called by the engines: after the warm-up the first ``count`` runs wait until all of them have begun."""

    def __init__(self, count: int, warm_ups: int) -> None:
        self.most = 0
        self._barrier = threading.Barrier(count)
        self._runs = -warm_ups
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._runs += 1
            run, self._now = self._runs, self._now + 1
            self.most = max(self.most, self._now)
        if 0 < run <= self._barrier.parties:
            self._barrier.wait(PATIENCE_S)
        time.sleep(0.001)
        with self._lock:
            self._now -= 1


@pytest.mark.parametrize("count", [2, 3])
def test_of_a_recording_several_frames_are_in_flight_and_come_in_order(count: int) -> None:
    before, names = set(threading.enumerate()), []  # type: Any, List[str]
    together, sink = _Together(count, warm_ups=count), _ListSink()
    with Pipeline(_pool(count, together), ListSource(40), sinks=[sink]) as pipeline:
        for result in pipeline:
            names = names or pipeline.stats["threads"]
            sink_has = [given.sequence for given in sink.results]
            assert sink_has == list(range(len(sink_has))) and result.dropped == 0
    assert together.most == count
    assert {"rtda-infer", *(f"rtda-infer-{number}" for number in range(2, count + 1))} <= set(names)
    assert [result.sequence for result in sink.results] == list(range(40))
    assert [int(result.frame[0, 0, 0]) for result in sink.results] == list(range(40))
    stats = pipeline.stats
    assert (stats["frames"], stats["captured"], stats["dropped"]) == (40, 40, 0)
    assert stats["stages"]["infer"]["count"] == stats["stages"]["age"]["count"] == 40
    assert stats["threads"] == [] and set(threading.enumerate()) <= before


@pytest.mark.parametrize("seed", range(3))
def test_in_flight_results_keep_their_order_whatever_each_takes(seed: int) -> None:
    pauses = iter(np.random.default_rng(seed).random(1000) * 0.003)
    with Pipeline(_pool(3, lambda: time.sleep(next(pauses))), ListSource(60)) as pipeline:
        assert [result.sequence for result in pipeline] == list(range(60))


def test_a_result_does_not_wait_for_the_next_frame_to_come() -> None:
    got = threading.Event()
    source = ListSource(2, before=lambda number: number == 1 and got.wait(PATIENCE_S))
    with Pipeline(_pool(), source) as pipeline:
        assert next(pipeline).sequence == 0
        got.set()
        assert next(pipeline).sequence == 1


def test_the_age_of_a_result_counts_until_those_before_it_are_given() -> None:
    clock, second_is_done = FakeClock(), threading.Event()

    class Slow(Segmenter):
        def segment(self, *words: Any, **settings: Any) -> Any:
            if settings["sequence"] == 0:
                assert second_is_done.wait(PATIENCE_S)
                clock.sleep(1.0)
            result = super().segment(*words, **settings)
            if settings["sequence"] == 1:
                second_is_done.set()
            return result

    pool = SegmenterPool([Slow(NumpyEngine(), clock=clock) for _ in range(2)])
    with Pipeline(pool, ListSource(2, clock=clock), clock=clock) as pipeline:
        first, second = list(pipeline)
    assert first.timing["age"] == second.timing["age"] == 1000.0
    assert pipeline.stats["seconds"] == 1.0


def test_of_a_camera_one_frame_is_in_flight_whatever_the_pool_has() -> None:
    runs: List[int] = []
    most = [0]

    def before() -> None:
        runs.append(1)
        most[0] = max(most[0], len(runs))
        time.sleep(0.001)
        runs.pop()

    with Pipeline(_pool(3, before), ListSource(200, live=True)) as pipeline:
        for _ in pipeline:
            assert not any(name.startswith("rtda-infer-") for name in pipeline.stats["threads"])
    assert most == [1] and pipeline.policy == "newest"


def test_a_camera_with_every_frame_may_have_several_in_flight() -> None:
    together = _Together(2, warm_ups=2)
    with Pipeline(_pool(2, together), ListSource(20, live=True), policy="every") as pipeline:
        assert [result.sequence for result in pipeline] == list(range(20))
    assert together.most == 2


def test_open_refuses_several_frames_in_flight_of_a_camera(model_path: Path, tmp_path: Path) -> None:
    for source, settings, error in [
        (ListSource(3, live=True), {"in_flight": 2}, "2 frames in flight would make each mask of a camera older"),
        (ListSource(3), {"in_flight": 2, "policy": "newest"}, "2 frames in flight"),
        (ListSource(3), {"in_flight": 0}, "at least 1, got 0"),
    ]:
        sink = _ListSink()
        with pytest.raises(ConfigError, match=error):
            Pipeline.open(tmp_path / "not even looked for.onnx", source, sinks=[sink], **settings)
        assert source.closed.is_set() and sink.closed == 1


def test_open_makes_and_closes_a_pool(model_path: Path) -> None:
    uri = "test://bars?fps=0&size=96x64&frames=9"
    with Pipeline.open(model_path, uri, "cpu", threads=1) as pipeline:
        expected = [result.mask for result in pipeline]
    with Pipeline.open(model_path, uri, "cpu", in_flight=3, threads=1, compare=model_path) as pipeline:
        results = list(pipeline)
        assert pipeline.segmenter.in_flight == 3
        assert pipeline.segmenter.description.endswith("1 thread, 3 in flight")
    assert all((result.mask == mask).all() for result, mask in zip(results, expected))
    assert all((result.compared == mask).all() for result, mask in zip(results, expected))
    with pytest.raises(EngineError, match="closed"):
        pipeline.segmenter.segment(results[0].frame)


def test_in_flight_an_error_comes_after_the_results_before_it_and_nothing_after() -> None:
    class Failing(Segmenter):
        def segment(self, frame: np.ndarray, *words: Any, **settings: Any) -> Any:
            if settings["sequence"] == 5:
                raise FrameError("the sixth")
            if settings["sequence"] == 4:
                time.sleep(0.02)  # the error is there first
            return super().segment(frame, *words, **settings)

    seen, sink = [], _ListSink()  # type: List[int], _ListSink
    source = ListSource(10**6)
    pool = SegmenterPool([Failing(NumpyEngine()) for _ in range(3)])
    with Pipeline(pool, source, sinks=[sink]) as pipeline, pytest.raises(FrameError, match="the sixth"):
        for result in pipeline:
            seen.append(result.sequence)
    assert seen == [0, 1, 2, 3, 4] == [result.sequence for result in sink.results]
    assert source.closed.wait(PATIENCE_S) and pipeline.state == "lost"


def test_in_flight_an_error_of_the_reader_comes_after_the_frames_before_it() -> None:
    seen: List[int] = []
    pauses = iter([0.0, 0.0, 0.03, 0.0, 0.0, 0.0])
    pool = _pool(2, lambda: time.sleep(next(pauses)))
    with Pipeline(pool, ListSource(4, error=CameraError("gone"))) as pipeline, pytest.raises(CameraError, match="gone"):
        for result in pipeline:
            seen.append(result.sequence)
    assert seen == [0, 1, 2, 3]


def test_in_flight_an_error_ends_the_thread_that_waits_for_a_frame_too() -> None:
    failed, release = threading.Event(), threading.Event()

    class Failing(Segmenter):
        def segment(self, *words: Any, **settings: Any) -> Any:
            if threading.current_thread().name == "rtda-infer-2":
                failed.set()
                raise FrameError("the helper's")
            return super().segment(*words, **settings)

    def before(number: int) -> None:  # one frame at a time, so that the other thread waits for the next
        _wait_for(lambda: failed.is_set() or pipeline.stats["frames"] == number)
        if failed.is_set():
            release.wait(PATIENCE_S)

    pool = SegmenterPool([Failing(NumpyEngine()) for _ in range(2)])
    with Pipeline(pool, ListSource(10**6, before=before), timeout_s=10 * PATIENCE_S) as pipeline:
        pipeline.start()
        _wait_for(lambda: not any(name.startswith("rtda-infer") for name in pipeline.stats["threads"]))
        assert pipeline.state == "lost"
        release.set()


def test_in_flight_what_giving_fails_with_is_raised() -> None:
    class Broken(ListSource):
        @property
        def state(self) -> str:  # asked for by each result that is given
            raise ZeroDivisionError

    with Pipeline(_pool(3), Broken(10**6)) as pipeline, pytest.raises(ZeroDivisionError):
        pipeline.join(PATIENCE_S)


def test_in_flight_max_frames_is_kept_and_old_results_are_counted() -> None:
    sink = _ListSink()
    with Pipeline(_pool(3), ListSource(10**6), max_frames=7, sinks=[sink]) as pipeline:
        assert pipeline.join(PATIENCE_S)
    assert [result.sequence for result in sink.results] == list(range(7)) and pipeline.stats["frames"] == 7
    with Pipeline(_pool(2), ListSource(5, clock=lambda: 0), max_age_ms=1e-6) as pipeline:
        assert list(pipeline) == []
    assert pipeline.stats["too_old"] == 5


def test_in_flight_close_stops_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    for consumed in (0, 1, 5):
        source, sink, engines = ListSource(10**9), _ListSink(), [NumpyEngine() for _ in range(3)]
        pool = SegmenterPool([Segmenter(engine) for engine in engines])
        pipeline = Pipeline(pool, source, sinks=[sink], owned=[pool])
        pipeline.start()
        for _ in range(consumed):
            next(pipeline)
        pipeline.close()
        assert set(threading.enumerate()) <= before
        assert [result.sequence for result in sink.results] == list(range(pipeline.stats["frames"]))
        assert source.closed.is_set() and [engine.released for engine in engines] == [1, 1, 1]


def test_in_flight_close_returns_though_one_engine_is_stuck(caplog: Any) -> None:
    stuck, release = threading.Event(), threading.Event()
    runs: List[int] = []

    def before() -> None:
        runs.append(1)
        if len(runs) == 6:
            stuck.set()
            release.wait(PATIENCE_S)

    source = ListSource(10**6)
    pool = _pool(2, before)
    pipeline = Pipeline(pool, source, patience=Patience(stop_s=0.1))
    pipeline.start()
    assert stuck.wait(PATIENCE_S)
    pipeline.close()
    assert "the network does not return" in caplog.text
    release.set()
    assert pipeline.join(PATIENCE_S)


def test_pipelines_on_one_network_take_turns_and_none_starves() -> None:
    count, frames = 3, 12
    most = count * (frames - 3)
    order: List[int] = []

    def before() -> None:
        if count < len(order) <= most:  # all have begun and none is at its end: the others come to wait meanwhile
            _wait_for(lambda: segmenter.waiting == count - 1)
        order.append(threading.get_ident())

    segmenter = _segmenter(before)
    with contextlib.ExitStack() as stack:
        pipelines = [stack.enter_context(Pipeline(segmenter, ListSource(frames))) for _ in range(count)]
        for pipeline in pipelines:
            pipeline.start()
        for pipeline in pipelines:
            pipeline.join(PATIENCE_S)
    assert [pipeline.stats["frames"] for pipeline in pipelines] == [frames] * count
    served = order[2 * count : most]
    rounds = [set(served[start : start + count]) for start in range(0, len(served), count)]
    assert all(len(threads) == count for threads in rounds), "each once before one is served again"


def test_a_pipeline_leaves_the_network_of_others_to_them() -> None:
    for shared in (_segmenter(), _pool()):
        with Pipeline(shared, ListSource(10**6, live=True)) as stays:
            with Pipeline(shared, ListSource(5)) as goes:
                assert len(list(goes)) == 5
            before = stays.stats["frames"]
            stays.start()
            _wait_for(lambda: stays.stats["frames"] > before + 5)  # noqa: B023, called here
        assert shared.segment(np.zeros((4, 6, 3), np.uint8)).mask.shape == (4, 6)


@pytest.mark.parametrize("shared", [_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_of_the_frames_that_come_while_others_have_their_turn_the_newest_is_taken(shared: Any) -> None:
    warm, held, came = threading.Event(), threading.Event(), threading.Event()

    def before(number: int) -> None:
        if number == 0:
            warm.set()
            assert held.wait(PATIENCE_S)
        elif number == 1:  # the first frame waits for its turn before the next ones come
            _wait_for(lambda: shared.waiting == 1)
        elif number == 6:
            came.set()

    sink = _ListSink()
    with Pipeline(shared, ListSource(6, live=True, before=before), sinks=[sink]) as pipeline:
        pipeline.start()
        assert warm.wait(PATIENCE_S)
        with shared.turn():  # another camera's frame is at work
            held.set()
            assert came.wait(PATIENCE_S)
        assert pipeline.join(PATIENCE_S)
    assert [(result.sequence, result.dropped) for result in sink.results] == [(5, 5)]
    assert int(sink.results[0].frame[0, 0, 0]) == 5
    assert (pipeline.stats["captured"], pipeline.stats["dropped"], pipeline.stats["frames"]) == (6, 5, 1)


@pytest.mark.parametrize("shared", [_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_close_does_not_wait_for_the_frames_of_others_on_the_same_network(shared: Any, caplog: Any) -> None:
    with Pipeline(shared, ListSource(10**6, live=True)) as pipeline:
        pipeline.start()
        _wait_for(lambda: pipeline.stats["frames"] > 3)
        with shared.turn():  # another camera's frame is at work
            _wait_for(lambda: shared.waiting == 1)
            pipeline.close()
            assert "rtda-infer" not in pipeline.stats["threads"] and not shared.waiting
        assert pipeline.state == "ended"
    with shared.turn(), Pipeline(shared, ListSource(3)) as pipeline:
        pipeline.start()
        _wait_for(lambda: shared.waiting == 1)
        pipeline.close()  # while it waits to warm up
        assert "rtda-infer" not in pipeline.stats["threads"] and pipeline.state == "ended"
    assert not caplog.records


def test_cameras_on_a_pool_have_a_frame_in_flight_each() -> None:
    warm, together, passed = threading.Event(), threading.Barrier(2), threading.Event()

    def before() -> None:
        if warm.is_set() and not passed.is_set():  # each waits until the other one is at work
            together.wait(PATIENCE_S)
            passed.set()

    pool = _pool(2, before)
    with Pipeline(pool, ListSource(10**6, live=True)) as left, Pipeline(pool, ListSource(10**6, live=True)) as right:
        for pipeline in (left, right):
            pipeline.start()
        _wait_for(lambda: min(left.stats["frames"], right.stats["frames"]) > 3)
        warm.set()
        assert passed.wait(PATIENCE_S)


@pytest.mark.parametrize("engines", [0, 1, 2], ids=["segmenter", "pool-1", "pool-2"])
def test_pipelines_that_use_two_networks_crosswise_do_not_wait_for_each_other(engines: int) -> None:
    sides = engines or 1  # pipelines of each direction: one for each engine
    pipelines_per_network = 2 * sides
    together, warm = threading.Barrier(pipelines_per_network), threading.Barrier(pipelines_per_network)

    def network() -> Any:
        runs = iter(range(-pipelines_per_network * sides, 10**9))

        def before() -> None:
            if 0 <= next(runs) < sides:  # after the warm-ups: each pipeline has its first network, and goes on at once
                together.wait(PATIENCE_S)

        return _pool(engines, before) if engines else _segmenter(before)

    def all_are_warm(number: int) -> None:
        if number == 0:
            warm.wait(PATIENCE_S)

    networks = [network(), network()]
    with contextlib.ExitStack() as stack:
        pipelines = []
        for number in range(pipelines_per_network):
            first, second = networks if number % 2 else networks[::-1]
            source = ListSource(10**6, live=True, before=all_are_warm)
            pipelines.append(stack.enter_context(Pipeline(first, source, compare=second)))
        for pipeline in pipelines:
            pipeline.start()
        _wait_for(lambda: min(pipeline.stats["frames"] for pipeline in pipelines) > 3)
        for pipeline in pipelines:
            result = pipeline.latest()
            assert result.compared is not None and (result.compared == result.mask).all()


@pytest.mark.parametrize("shared", [_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_who_waits_for_the_network_to_compare_with_leaves_the_first_one_to_others(shared: Any) -> None:
    hold, release = threading.Event(), threading.Event()
    at_work = threading.Event()

    def before() -> None:
        if hold.is_set():
            at_work.set()
            release.wait(PATIENCE_S)

    other = _segmenter(before)
    with Pipeline(shared, ListSource(10**6, live=True), compare=other) as compares, contextlib.ExitStack() as stack:
        stack.callback(release.set)
        alone = stack.enter_context(Pipeline(shared, ListSource(10**6, live=True)))
        for pipeline in (compares, alone):
            pipeline.start()
        _wait_for(lambda: min(compares.stats["frames"], alone.stats["frames"]) > 0)
        hold.set()
        assert at_work.wait(PATIENCE_S)
        given = alone.stats["frames"]
        _wait_for(lambda: alone.stats["frames"] > given + 3)
        assert not release.is_set()
