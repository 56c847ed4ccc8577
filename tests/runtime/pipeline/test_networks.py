"""Two networks, several frames in flight, several pipelines on one network."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import FakeClock, ListSink, ListSource, NumpyEngine, numpy_segmenter
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import (
    CameraError,
    ConfigError,
    EngineError,
    FrameError,
)
from rtda_runtime import Pipeline, Segmenter, SegmenterPool
from rtda_runtime.pipeline.options import Patience

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
    together, sink = _Together(count, warm_ups=count), ListSink()
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
        sink = ListSink()
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

    seen, sink = [], ListSink()  # type: List[int], ListSink
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
        wait_for(lambda: failed.is_set() or pipeline.stats["frames"] == number)
        if failed.is_set():
            release.wait(PATIENCE_S)

    pool = SegmenterPool([Failing(NumpyEngine()) for _ in range(2)])
    with Pipeline(pool, ListSource(10**6, before=before), timeout_s=10 * PATIENCE_S) as pipeline:
        pipeline.start()
        wait_for(lambda: not any(name.startswith("rtda-infer") for name in pipeline.stats["threads"]))
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
    sink = ListSink()
    with Pipeline(_pool(3), ListSource(10**6), max_frames=7, sinks=[sink]) as pipeline:
        assert pipeline.join(PATIENCE_S)
    assert [result.sequence for result in sink.results] == list(range(7)) and pipeline.stats["frames"] == 7
    with Pipeline(_pool(2), ListSource(5, clock=lambda: 0), max_age_ms=1e-6) as pipeline:
        assert list(pipeline) == []
    assert pipeline.stats["too_old"] == 5


def test_in_flight_close_stops_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    for consumed in (0, 1, 5):
        source, sink, engines = ListSource(10**9), ListSink(), [NumpyEngine() for _ in range(3)]
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
            wait_for(lambda: segmenter.waiting == count - 1)
        order.append(threading.get_ident())

    segmenter = numpy_segmenter(before)
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
    for shared in (numpy_segmenter(), _pool()):
        with Pipeline(shared, ListSource(10**6, live=True)) as stays:
            with Pipeline(shared, ListSource(5)) as goes:
                assert len(list(goes)) == 5
            before = stays.stats["frames"]
            stays.start()
            wait_for(lambda: stays.stats["frames"] > before + 5)  # noqa: B023, called here
        assert shared.segment(np.zeros((4, 6, 3), np.uint8)).mask.shape == (4, 6)


@pytest.mark.parametrize("shared", [numpy_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_of_the_frames_that_come_while_others_have_their_turn_the_newest_is_taken(shared: Any) -> None:
    warm, held, came = threading.Event(), threading.Event(), threading.Event()

    def before(number: int) -> None:
        if number == 0:
            warm.set()
            assert held.wait(PATIENCE_S)
        elif number == 1:  # the first frame waits for its turn before the next ones come
            wait_for(lambda: shared.waiting == 1)
        elif number == 6:
            came.set()

    sink = ListSink()
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


@pytest.mark.parametrize("shared", [numpy_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_close_does_not_wait_for_the_frames_of_others_on_the_same_network(shared: Any, caplog: Any) -> None:
    with Pipeline(shared, ListSource(10**6, live=True)) as pipeline:
        pipeline.start()
        wait_for(lambda: pipeline.stats["frames"] > 3)
        with shared.turn():  # another camera's frame is at work
            wait_for(lambda: shared.waiting == 1)
            pipeline.close()
            assert "rtda-infer" not in pipeline.stats["threads"] and not shared.waiting
        assert pipeline.state == "ended"
    with shared.turn(), Pipeline(shared, ListSource(3)) as pipeline:
        pipeline.start()
        wait_for(lambda: shared.waiting == 1)
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
        wait_for(lambda: min(left.stats["frames"], right.stats["frames"]) > 3)
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

        return _pool(engines, before) if engines else numpy_segmenter(before)

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
        wait_for(lambda: min(pipeline.stats["frames"] for pipeline in pipelines) > 3)
        for pipeline in pipelines:
            result = pipeline.latest()
            assert result.compared is not None and (result.compared == result.mask).all()


@pytest.mark.parametrize("shared", [numpy_segmenter(), _pool(1)], ids=["segmenter", "pool"])
def test_who_waits_for_the_network_to_compare_with_leaves_the_first_one_to_others(shared: Any) -> None:
    hold, release = threading.Event(), threading.Event()
    at_work = threading.Event()

    def before() -> None:
        if hold.is_set():
            at_work.set()
            release.wait(PATIENCE_S)

    other = numpy_segmenter(before)
    with Pipeline(shared, ListSource(10**6, live=True), compare=other) as compares, contextlib.ExitStack() as stack:
        stack.callback(release.set)
        alone = stack.enter_context(Pipeline(shared, ListSource(10**6, live=True)))
        for pipeline in (compares, alone):
            pipeline.start()
        wait_for(lambda: min(compares.stats["frames"], alone.stats["frames"]) > 0)
        hold.set()
        assert at_work.wait(PATIENCE_S)
        given = alone.stats["frames"]
        wait_for(lambda: alone.stats["frames"] > given + 3)
        assert not release.is_set()
