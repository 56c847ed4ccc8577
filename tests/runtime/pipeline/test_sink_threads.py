"""Sinks, each on a thread of its own: slow, failing, stuck, finishing a file."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict

import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import ListSink, ListSource, numpy_segmenter

from rtda_deploy.errors import (
    CameraError,
    FrameError,
)
from rtda_runtime import Pipeline, PipelineOptions
from rtda_runtime.pipeline.options import Patience
from rtda_runtime.pipeline.sink_thread import SinkThread
from rtda_runtime.result import Result

# Sinks, each on its own thread


def test_a_sink_that_keeps_gets_every_frame_of_a_recording_however_slow_it_is() -> None:
    sink = ListSink(before=lambda result: time.sleep(0.002))
    with Pipeline(numpy_segmenter(), ListSource(40), sinks=[sink]) as pipeline:
        pipeline.join()
    assert [result.sequence for result in sink.results] == list(range(40))
    assert pipeline.stats["sinks"]["list"]["written"] == 40 and pipeline.stats["sinks"]["list"]["dropped"] == 0


@pytest.mark.parametrize(("keeps", "policy"), [(False, "every"), (False, "newest"), (True, "newest")])
def test_a_slow_sink_drops_its_own_frames_and_holds_nobody_up(keeps: bool, policy: str) -> None:
    room = 30 if keeps else 1  # what waits for a sink that keeps everything evens out slow frames
    at_end = threading.Event()
    slow, fast = ListSink(before=lambda result: at_end.wait(PATIENCE_S)), ListSink(name="fast")
    slow.keeps = keeps
    with Pipeline(numpy_segmenter(), ListSource(100), policy=policy, sinks=[slow, fast]) as pipeline:
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

    failing, well = ListSink(before=fail), ListSink(name="well")
    with Pipeline(numpy_segmenter(), ListSource(20), sinks=[failing, well]) as pipeline:
        assert len(list(pipeline)) == 20
    assert len(well.results) == 20 and len(failing.results) == 3
    assert (failing.closed, well.closed) == (1, 1)
    stats = pipeline.stats["sinks"]
    assert (stats["list"]["error"], stats["well"]["error"]) == ("too large", None)
    assert [record.getMessage() for record in caplog.records] == ["sink list stopped: too large"], "told once"
    assert isinstance(pipeline.sink_errors["list"], FrameError) and list(pipeline.sink_errors) == ["list"]


def test_what_a_sink_fails_with_at_its_end_is_told_too(caplog: Any) -> None:
    class FullDisk(ListSink):
        def close(self) -> None:
            raise FrameError("no room for the index")

    with Pipeline(numpy_segmenter(), ListSource(2), sinks=[FullDisk()]) as pipeline:
        list(pipeline)
    assert pipeline.stats["sinks"]["list"]["error"] == "no room for the index"


def test_what_sinks_were_given_is_written_before_they_are_closed() -> None:
    sink = ListSink(before=lambda result: time.sleep(0.002))
    pipeline = Pipeline(numpy_segmenter(), ListSource(10**6), sinks=[sink])
    next(pipeline)
    pipeline.close()
    assert [result.sequence for result in sink.results] == list(range(pipeline.stats["frames"]))
    assert sink.closed == 1


def test_whoever_stops_a_camera_does_not_wait_for_a_slow_sink_to_write_all_it_was_given() -> None:
    began, release = threading.Event(), threading.Event()

    def stick(result: Result) -> None:
        began.set()
        release.wait(PATIENCE_S)

    sink = ListSink(before=stick)
    patience = Patience(stop_s=PATIENCE_S, hurry_s=0.0)
    source = ListSource(10**6, live=True)
    pipeline = Pipeline(numpy_segmenter(), source, policy="newest", sinks=[sink], patience=patience)
    pipeline.start()
    wait_for(lambda: began.is_set() and pipeline.stats["frames"] > 10)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    assert source.closed.wait(PATIENCE_S)  # close() has told every thread
    release.set()
    closing.join(PATIENCE_S)
    stats = pipeline.stats["sinks"]["list"]
    assert stats["written"] == 1 and sink.closed == 1
    assert stats["written"] + stats["dropped"] == pipeline.stats["frames"], "what was not written is counted"


def test_at_the_end_of_a_source_everything_is_written_however_long_that_takes() -> None:
    sink = ListSink(before=lambda result: time.sleep(0.01))
    patience, options = Patience(stop_s=PATIENCE_S, hurry_s=0.0), PipelineOptions(policy="newest", max_frames=9)
    with Pipeline(numpy_segmenter(), ListSource(9), options, sinks=[sink], patience=patience) as pipeline:
        for _ in pipeline:
            pass
    stats = pipeline.stats
    assert stats["sinks"]["list"]["written"] == stats["frames"] > 0 and stats["sinks"]["list"]["dropped"] == 0


def test_close_returns_though_a_sink_is_stuck(caplog: Any) -> None:
    release = threading.Event()
    sink = ListSink(before=lambda result: release.wait(PATIENCE_S))
    sink.keeps = False
    pipeline = Pipeline(numpy_segmenter(), ListSource(10**6), sinks=[sink], patience=Patience(stop_s=0.1))
    next(pipeline)
    pipeline.close()
    assert "sink list does not return" in caplog.text and sink.closed == 0
    release.set()


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
    source, sinks = ListSource(10**6, live=True), [ListSink(name="a"), ListSink(name="b")]
    with pytest.raises(KeyboardInterrupt), Pipeline(numpy_segmenter(), source, sinks=sinks) as pipeline:
        pipeline.start()
    assert source.closed.wait(PATIENCE_S) and [sink.closed for sink in sinks] == [1, 1]
    assert set(threading.enumerate()) <= before


class _Film(ListSink):
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
    pipeline = Pipeline(numpy_segmenter(), ListSource(3), sinks=[film], patience=Patience(stop_s=0.0, stuck_s=0.0))
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
    pipeline = Pipeline(numpy_segmenter(), ListSource(3), sinks=[film], patience=Patience(stop_s=0.0))
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
    wait_for(lambda: film.closed == 1)


def test_a_file_that_is_stuck_in_a_result_is_left_behind(caplog: Any) -> None:
    release = threading.Event()
    stuck = ListSink(before=lambda result: release.wait(PATIENCE_S))
    pipeline = Pipeline(numpy_segmenter(), ListSource(3), sinks=[stuck], patience=Patience(stuck_s=0.0))
    next(pipeline)
    pipeline.close()
    assert "sink list does not return" in caplog.text
    release.set()


@pytest.mark.parametrize("called", [True, False])
def test_sys_exit_in_a_callback_or_a_sink_stalls_nothing(called: bool) -> None:
    def leave(result: Result) -> None:
        sys.exit(3)

    sink = ListSink(before=lambda result: None if called else leave(result))
    source = ListSource(10**6 if called else 50)
    with Pipeline(numpy_segmenter(), source, sinks=[sink], on_result=leave if called else None) as pipeline:
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

    sink, source = ListSink(before=note), ListSource(3, before=note)
    with Pipeline(numpy_segmenter(note), source, sinks=[sink], on_result=note) as pipeline:
        pipeline.join()
    assert names == {name: name[:15] for name in ("rtda-capture", "rtda-infer", "rtda-list", "rtda-callback")}


def test_nothing_is_left_behind() -> None:
    before = set(threading.enumerate())
    for end in ("source", "close", "error"):
        frames = {"source": 5, "close": 10**6, "error": 3}[end]
        source = ListSource(frames, live=True, error=CameraError("gone"))
        pipeline = Pipeline(numpy_segmenter(), source, sinks=[ListSink()], on_result=lambda result: None)
        with pipeline, contextlib.suppress(CameraError):
            next(pipeline)
            if end != "close":
                pipeline.join()
        assert set(threading.enumerate()) <= before, end
        assert pipeline.stats["threads"] == [] and source.closed.is_set()
