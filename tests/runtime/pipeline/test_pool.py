"""Several frames at work at once: whose turn it is, what comes back in which order, and how it ends."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec, write_model

from rtda_deploy.errors import ConfigError, EngineError, FrameError
from rtda_deploy.optional import available
from rtda_runtime import Segmenter, SegmenterPool
from rtda_runtime.pool import check_in_flight
from rtda_runtime.sources.synthetic import bars


def pool_of(count: int, before: Callable[[], Any] = lambda: None) -> SegmenterPool:
    return SegmenterPool([Segmenter(NumpyEngine(before=before)) for _ in range(count)])


def pictures(count: int) -> List[np.ndarray]:
    return [bars(number, (96, 64)) for number in range(count)]


@contextlib.contextmanager
def ends_in_time() -> Iterator[None]:
    """Fails where the block hangs: a place that a thread keeps is not had by another one that would watch it."""

    def late(*_: Any) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class Gauge:
    """Counts who is inside at once: call ``enter`` where they come in, ``leave`` where they go out."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self._lock:
            self.now -= 1


# It stands in for a segmenter


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_masks_are_those_of_one_segmenter_whoever_calls(model_path: Path, provider: str) -> None:
    if provider == "openvino" and not available("openvino"):
        pytest.skip("OpenVINO is not installed")
    frames = pictures(24)
    with Segmenter.open(model_path, provider) as segmenter:
        expected = [segmenter.segment(frame).mask for frame in frames]
        spec = segmenter.spec
    found: List[Any] = [None] * len(frames)
    with SegmenterPool.open(model_path, provider, in_flight=3, threads=1) as pool:
        assert (pool.spec, pool.provider, pool.path, pool.in_flight) == (spec, provider, model_path, 3)

        def serve(first: int) -> None:
            for number in range(first, len(frames), 6):
                found[number] = pool.segment(frames[number])

        threads = [threading.Thread(target=serve, args=(first,)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    for frame, result, mask in zip(frames, found, expected):
        assert result.frame is frame and (result.mask == mask).all()
    assert sorted(result.sequence for result in found) == list(range(24)), "each call has its number"


def test_as_many_frames_are_at_work_as_were_asked_for_and_no_more() -> None:
    gauge, together = Gauge(), threading.Barrier(2)
    first = [True, True]

    def before() -> None:
        if first:  # the first two wait for each other: they are there at once
            first.pop()
            together.wait(PATIENCE_S)
        gauge()

    with pool_of(2, before) as pool:
        threads = [threading.Thread(target=pool.segment, args=(frame,)) for frame in pictures(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert gauge.most == 2 and gauge.now == 0


def test_who_waits_longest_is_served_next() -> None:
    began, release, order = threading.Event(), threading.Event(), []  # type: threading.Event, threading.Event, List[int]

    def before() -> None:
        began.set()
        release.wait(PATIENCE_S)

    with pool_of(1, before) as pool:
        threads = []
        for number, frame in enumerate(pictures(5)):
            threads.append(
                threading.Thread(target=lambda n=number, f=frame: order.append(pool.segment(f, sequence=n).sequence))
            )
            threads[-1].start()
            wait_for(lambda: pool.waiting == len(threads) - 1 and began.is_set())
        release.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert order == list(range(5))


def test_settings_reach_each_engine(tmp_path: Path) -> None:
    path = write_model(tmp_path / "mask.onnx", tiny_spec(output="mask"), confidence="uint8")
    asked = {"region": "0,0.5,1,1", "groups": ["drivable=road"], "confidence": True}
    with SegmenterPool.open(path, "cpu", in_flight=2, **asked) as pool:
        assert pool.spec.class_names == ("drivable", "other")
        for result in pool.segment_all(pictures(4)):
            assert (result.mask[:32] == 255).all() and set(np.unique(result.mask[32:])) <= {0, 1}
            assert result.confidence is not None


def test_a_mask_may_be_written_into_the_callers_array_with_the_callers_stamps() -> None:
    out = np.empty((64, 96), np.uint8)
    with pool_of(2) as pool:
        result = pool.segment(pictures(1)[0], out, captured_ns=7, sequence=5)
    assert result.mask is out and (result.captured_ns, result.sequence) == (7, 5)


def test_every_engine_is_warm_after_a_warm_up() -> None:
    engines = [NumpyEngine() for _ in range(3)]
    runs: List[int] = []
    for number, engine in enumerate(engines):
        engine.before = lambda n=number: runs.append(n)  # type: ignore[misc]
    with SegmenterPool([Segmenter(engine) for engine in engines]) as pool:
        pool.warm_up((90, 130))
    assert sorted(runs) == [0, 1, 2]


# Opening and closing


@pytest.mark.parametrize(
    ("cores", "in_flight", "asked", "text"),
    [(2, 2, None, "1 thread"), (8, 2, None, "4 threads"), (2, 3, None, "1 thread"), (8, 2, 3, "3 threads")],
)
def test_the_cores_are_divided_among_the_engines(
    model_path: Path, cores: int, in_flight: int, asked: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtda_runtime.pool.usable_cores", lambda: cores)
    with SegmenterPool.open(model_path, "cpu", in_flight=in_flight, threads=asked) as pool:
        assert pool.description.endswith(f", {text}, {in_flight} in flight")


def test_all_engines_run_on_what_auto_took_first(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: List[str] = []
    opened = Segmenter.open

    def note(path: Path, provider: str, *words: Any, **settings: Any) -> Segmenter:
        asked.append(provider)
        return opened(path, "cpu", *words, **settings)

    monkeypatch.setattr(Segmenter, "open", note)
    SegmenterPool.open(model_path, in_flight=3).close()
    SegmenterPool.open(model_path, "openvino-bf16", in_flight=2).close()
    assert asked == ["auto", "cpu", "cpu", "openvino-bf16", "openvino-bf16"]


def test_where_an_engine_does_not_open_those_before_are_closed(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = [NumpyEngine()]

    def open_next(*_: Any, **__: Any) -> Segmenter:
        if engines[0].input_buffer is not None and len(engines) == 1:
            engines.append(NumpyEngine())
            return Segmenter(engines[0])
        raise EngineError("no memory for another")

    monkeypatch.setattr(Segmenter, "open", open_next)
    with pytest.raises(EngineError, match="no memory"):
        SegmenterPool.open(model_path, in_flight=2)
    assert engines[0].released == 1


@pytest.mark.parametrize("count", [0, -1])
def test_there_is_no_pool_of_nothing(model_path: Path, count: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 1, got {count}"):
        SegmenterPool.open(model_path, in_flight=count)
    with pytest.raises(ConfigError):
        SegmenterPool([])


def test_close_waits_for_calls_at_work_and_may_be_called_again() -> None:
    began, release = threading.Barrier(3), threading.Event()

    def before() -> None:
        began.wait(PATIENCE_S)
        release.wait(PATIENCE_S)

    engines = [NumpyEngine(before=before) for _ in range(2)]
    segmenters = [Segmenter(engine) for engine in engines]
    pool = SegmenterPool(segmenters)
    results: List[Any] = []
    callers = [threading.Thread(target=lambda f=frame: results.append(pool.segment(f))) for frame in pictures(2)]
    for thread in callers:
        thread.start()
    began.wait(PATIENCE_S)
    closing = threading.Thread(target=pool.close)
    closing.start()
    wait_for(lambda: any(segmenter.waiting for segmenter in segmenters))
    assert [engine.released for engine in engines] == [0, 0]
    release.set()
    for thread in (closing, *callers):
        thread.join(PATIENCE_S)
    assert len(results) == 2 and [engine.released for engine in engines] == [1, 1]
    pool.close()
    with pytest.raises(EngineError, match="closed"):
        pool.segment(pictures(1)[0])
    assert [engine.released for engine in engines] == [1, 1]


def test_all_engines_are_closed_though_one_fails_at_it() -> None:
    class Stuck(NumpyEngine):
        def _release(self) -> None:
            raise EngineError("stuck")

    engines = [NumpyEngine(), Stuck(), NumpyEngine()]
    with pytest.raises(EngineError, match="stuck"):
        SegmenterPool([Segmenter(engine) for engine in engines]).close()
    assert [engine.released for engine in engines] == [1, 0, 1]


# Many frames


def test_results_come_in_the_order_of_the_frames_whichever_is_done_first() -> None:
    second_is_done = threading.Event()
    engines = [NumpyEngine(), NumpyEngine()]
    frames = pictures(7)

    class Watched(Segmenter):
        def segment(self, frame: np.ndarray, *words: Any, **settings: Any) -> Any:
            if settings["sequence"] == 0:
                assert second_is_done.wait(PATIENCE_S)
            result = super().segment(frame, *words, **settings)
            if settings["sequence"] == 1:
                second_is_done.set()
            return result

    with SegmenterPool([Watched(engine) for engine in engines]) as pool:
        results = list(pool.segment_all(frames))
    assert [result.sequence for result in results] == list(range(7))
    assert all((result.frame == frame).all() for result, frame in zip(results, frames))


@pytest.mark.parametrize("in_flight", [2, 3])
def test_frames_may_all_come_in_one_buffer(in_flight: int) -> None:
    expected_of = Segmenter(NumpyEngine())
    expected = [expected_of.segment(frame) for frame in pictures(12)]
    buffer, all_read = np.empty((64, 96, 3), np.uint8), threading.Event()

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(pictures(12)):
            buffer[...] = frame
            if number == in_flight - 1:
                all_read.set()
            yield buffer
        buffer.fill(0)

    class Late(Segmenter):
        def segment(self, *words: Any, **settings: Any) -> Any:
            assert all_read.wait(PATIENCE_S)  # so the buffer has another frame by then
            return super().segment(*words, **settings)

    with SegmenterPool([Late(NumpyEngine()) for _ in range(in_flight)]) as pool:
        results = list(pool.segment_all(frames()))
    assert len(results) == 12 and len({mask.mask.tobytes() for mask in expected}) > 1
    for result, alone in zip(results, expected):
        assert (result.mask == alone.mask).all() and (result.frame == alone.frame).all()


def test_frames_are_read_as_there_is_room_for_them() -> None:
    read: List[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(pictures(10)):
            read.append(number)
            yield frame

    with pool_of(2) as pool:
        results = pool.segment_all(frames())
        assert read == []
        for count, _ in enumerate(results, start=1):
            assert len(read) == min(10, count + 2), "two at work, and one with the caller"


def test_no_frames_give_no_results() -> None:
    with pool_of(2) as pool:
        assert list(pool.segment_all([])) == []


def test_a_bad_frame_is_an_error_after_the_results_before_it() -> None:
    frames = pictures(6)
    frames[3] = frames[3][..., 0]
    seen: List[int] = []
    with pool_of(2) as pool:
        with pytest.raises(FrameError, match="grey"):
            for result in pool.segment_all(frames):
                seen.append(result.sequence)
        assert seen == [0, 1, 2]
        assert len(list(pool.segment_all(pictures(3)))) == 3, "it goes on"


def test_an_error_of_reading_comes_after_the_results_before_it() -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from pictures(5)
        raise OSError("the disk is gone")

    seen: List[int] = []
    with pool_of(3) as pool, pytest.raises(OSError, match="the disk is gone"):
        for result in pool.segment_all(frames()):
            seen.append(result.sequence)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("how", ["break", "error", "ctrl-c"])
def test_who_leaves_the_loop_leaves_no_thread_behind(how: str) -> None:
    before = set(threading.enumerate())
    with pool_of(2) as pool:
        results = pool.segment_all(pictures(100))
        assert next(results).sequence == 0
        if how == "break":
            results.close()  # type: ignore[attr-defined]
        else:
            kind = KeyboardInterrupt if how == "ctrl-c" else ZeroDivisionError
            with pytest.raises(kind):
                results.throw(kind())  # type: ignore[attr-defined]
        assert set(threading.enumerate()) <= before
        assert pool.segment(pictures(1)[0]).mask.shape == (64, 96)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_who_keeps_an_engine_is_told_that_its_frames_would_wait_for_it(in_flight: int) -> None:
    before, read = set(threading.enumerate()), []  # type: Any, List[int]

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(pictures(9)):
            read.append(number)
            yield frame

    with pool_of(in_flight) as pool:
        with pool.turn():
            with ends_in_time(), pytest.raises(ConfigError, match="keeps an engine") as caught:
                next(pool.segment_all(frames()))
            assert caught.value.hint is not None and "outside" in caught.value.hint and read == []
            assert pool.segment(pictures(1)[0]).mask.shape == (64, 96)
        results = pool.segment_all(frames())
        next(results)
        with ends_in_time(), pool.turn(), pytest.raises(ConfigError, match="keeps an engine"):
            next(results)
        assert set(threading.enumerate()) <= before
        assert len(list(pool.segment_all(pictures(3)))) == 3


@pytest.mark.parametrize("how", ["close", "ctrl-c"])
def test_who_leaves_the_loop_does_not_wait_for_the_frames_of_others(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, main = set(threading.enumerate()), threading.get_ident()
    kept, waits, done = threading.Event(), threading.Event(), threading.Event()
    ended_first: List[bool] = []

    def keep() -> None:  # another thread's frame is at work
        with pool.turn():
            kept.set()
            ended_first.append(done.wait(PATIENCE_S))

    def interrupt() -> None:
        assert waits.wait(PATIENCE_S)
        wait_for(lambda: pool.waiting == 1)
        signal.pthread_kill(main, signal.SIGINT)

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(pictures(9)):
            if number == 1:
                other.start()
                assert kept.wait(PATIENCE_S)
            yield frame

    def noted_wait(*words: Any) -> Any:
        if kept.is_set():
            waits.set()
        return concurrent.futures.wait(*words)

    monkeypatch.setattr("rtda_runtime.pool.wait", noted_wait)
    other = threading.Thread(target=keep, daemon=True)
    with pool_of(1) as pool:
        results = pool.segment_all(frames())
        assert next(results).sequence == 0
        wait_for(lambda: pool.waiting == 1)
        if how == "close":
            results.close()
        else:
            presses = threading.Thread(target=interrupt, daemon=True)
            presses.start()
            with pytest.raises(KeyboardInterrupt):
                next(results)
            presses.join(PATIENCE_S)
        assert not pool.waiting
        done.set()
        other.join(PATIENCE_S)
        assert ended_first == [True], "the other one still had the engine"
        assert set(threading.enumerate()) <= before


def test_memory_of_masks_and_frames_is_used_again() -> None:
    masks, frames = set(), set()
    with pool_of(2) as pool:
        for result in pool.segment_all(pictures(60)):
            masks.add(result.mask.ctypes.data)
            frames.add(result.frame.ctypes.data)
    assert len(masks) <= 2 * 3 and len(frames) <= 2 * 3


# Where it is refused


@pytest.mark.parametrize(
    ("asked", "error", "hint"),
    [((2, "newest"), "mask of a camera older", "--policy every"), ((2, "every", 10.0), "at 10 Hz", "leave --rate out")],
)
def test_the_hint_is_for_what_was_asked(asked: Any, error: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        check_in_flight(*asked)
    assert caught.value.hint is not None and hint in caught.value.hint
    assert ("camera" in str(caught.value) + caught.value.hint) == (len(asked) == 2)
    check_in_flight(1, *asked[1:])
    check_in_flight(2, "every")
