"""A camera that is lost and comes back."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any, Callable, Iterator, List, Optional, Set

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.source_contract import OpenSource, SourceContract

from rtda_deploy.errors import CameraError, DeviceError, SourceError
from rtda_runtime.sources import Frame, ReconnectingSource, RefusedError, Source, open_source, reconnect
from rtda_runtime.sources.reconnect import delay_s

Step = Any  # a number: give a frame of that brightness; an exception: raise it; an Event: wait for it; a function: call


class Camera(Source):
    """Does what its script says, then waits until it is let go."""

    live = True
    fps = 30.0
    size_wh = (6, 4)

    def __init__(self, *steps: Step, stuck: Optional[threading.Event] = None) -> None:
        self.name = "camera"
        self.closed_by: List[str] = []
        self.reading = threading.Event()
        self._steps = list(steps)
        self._next = 0
        self._stuck = stuck or threading.Event()

    def read(self, timeout_s: float = 2.0) -> Optional[Frame]:
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, threading.Event):
                assert step.wait(PATIENCE_S)
            elif callable(step):
                step()
            else:
                frame = Frame(image=np.full((4, 6, 3), step, np.uint8), captured_ns=0, sequence=self._next)
                self._next += 1
                return frame
        self.reading.set()
        self._stuck.wait(PATIENCE_S)
        raise CameraError("the script of the camera is over")

    def close(self) -> None:
        self.closed_by.append(threading.current_thread().name)


def _gone() -> CameraError:
    return CameraError("camera was unplugged")


def _camera_threads_end() -> bool:
    """Waits for the threads of every reconnecting source."""
    threads = [thread for thread in threading.enumerate() if thread.name == "rtda-camera"]
    for thread in threads:
        thread.join(PATIENCE_S)
    return not any(thread.is_alive() for thread in threads)


class Opener:
    """Gives the cameras one after the other; an exception in their place is raised."""

    def __init__(self, *cameras: Any) -> None:
        self.left = list(cameras)
        self.opened: List[Camera] = []

    def __call__(self) -> Source:
        camera = self.left.pop(0)
        if isinstance(camera, Exception):
            raise camera
        self.opened.append(camera)
        return camera  # type: ignore[no-any-return]


@pytest.fixture()
def connect() -> Iterator[Callable[..., ReconnectingSource]]:
    """Open a reconnecting source over scripted cameras, without waits; closed after the test."""
    made: List[ReconnectingSource] = []
    let_go: List[Camera] = []

    def connect_(*cameras: Any, **options: Any) -> ReconnectingSource:
        let_go.extend(camera for camera in cameras if isinstance(camera, Camera))
        made.append(ReconnectingSource(Opener(*cameras), **{"drain": False, "wait": lambda _: False, **options}))
        return made[-1]

    yield connect_
    for camera in let_go:
        camera._stuck.set()
    for source in made:
        source.close()
    assert _camera_threads_end()


class TestReconnecting(SourceContract):
    live = True

    @pytest.fixture()
    def open_short(self) -> OpenSource:
        return lambda: ReconnectingSource(lambda: open_source("test://bars?fps=500&size=64x48&frames=5"), drain=False)


def test_a_camera_that_comes_back_goes_on_counting(connect: Any, caplog: Any) -> None:
    told: List[Any] = []
    with caplog.at_level(logging.INFO):
        source = connect(Camera(10, 11, _gone()), CameraError("still gone"), Camera(12, 13))
        source.on_state = lambda state, sentence: told.append((state, sentence, threading.current_thread()))
        assert (source.state, source.losses) == ("live", 0)
        frames = [source.read() for _ in range(4)]
    assert [(frame.sequence, frame.image[0, 0, 0]) for frame in frames] == [(0, 10), (1, 11), (2, 12), (3, 13)]
    assert (source.state, source.losses) == ("live", 1)
    assert [state for state, _, _ in told] == ["lost", "live"]
    assert "camera was unplugged; trying again in 0.25 s" in told[0][1]
    assert {thread for _, _, thread in told} == {threading.current_thread()}
    levels = [(record.levelname, record.message) for record in caplog.records]
    assert levels[0] == ("WARNING", "camera was unplugged; trying again in 0.25 s")
    assert levels[1] == ("INFO", "still gone; trying again")
    assert "camera is back after" in levels[2][1] and "first good frame" in levels[2][1]


def test_a_camera_that_is_silent_is_stale_and_live_again_with_its_next_frame(connect: Any) -> None:
    told: List[str] = []
    go_on = threading.Event()

    def note(state: str, sentence: str) -> None:
        told.append(state)
        go_on.set()

    source = connect(Camera(1, go_on, 2), stale_after_s=0.02)
    source.on_state = note
    assert [source.read().sequence for _ in range(2)] == [0, 1]
    assert told == ["stale", "live"]
    assert source.losses == 0


@pytest.mark.parametrize(("fps", "limit_s"), [(30.0, 0.5), (2.0, 1.5), (None, 0.5)])
def test_stale_is_three_periods_and_at_least_half_a_second(connect: Any, fps: Any, limit_s: float) -> None:
    camera = Camera()
    camera.fps = fps
    assert connect(camera).stale_after_s == limit_s


def test_a_camera_slower_than_it_says_is_not_stale_between_its_frames(connect: Any) -> None:
    now_s = [0.0]

    def pass_a_second() -> None:
        now_s[0] += 1.0

    steps: List[Any] = [step for number in range(40) for step in (pass_a_second, number)]
    source = connect(Camera(*steps), clock=lambda: now_s[0])
    for _ in range(40):
        source.read()
    assert 2.5 < source.stale_after_s <= 3.0


def test_a_camera_slower_than_half_a_second_is_stale_once_and_then_known(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect, "_WAKE_S", 0.001)
    reader, changed = threading.current_thread(), threading.Condition()
    now_s, due_s = 0.0, 0.0
    told: List[str] = []

    def clock() -> float:
        """Goes on with each look of the reader, until the camera's next frame is due."""
        nonlocal now_s
        with changed:
            if threading.current_thread() is reader:
                now_s = min(now_s + 0.125, due_s)
                changed.notify_all()
            return now_s

    def wait_two_seconds() -> None:
        nonlocal due_s
        with changed:
            due_s += 2.0
            assert changed.wait_for(lambda: now_s == due_s, PATIENCE_S)

    camera = Camera(*[step for number in range(6) for step in (wait_two_seconds, number)][1:])
    camera.fps = None  # type: ignore[assignment]
    source = connect(camera, clock=clock)
    source.on_state = lambda state, sentence: told.append(state)
    for _ in range(6):
        source.read(5.0)
    assert told == ["stale", "live"]
    assert source.stale_after_s == 6.0


def test_a_pause_counts_for_the_period_at_most_as_the_timeout(connect: Any) -> None:
    now_s = [0.0]

    def pass_an_hour() -> None:
        now_s[0] += 3600.0

    source = connect(Camera(1, pass_an_hour, 2), clock=lambda: now_s[0])
    source.read(2.0)
    source.read(2.0)
    assert source.stale_after_s <= 3 * 5.0


def test_delays_grow_up_to_a_cap(connect: Any) -> None:
    waited: List[float] = []
    failures = [CameraError("still gone")] * 7
    source = connect(Camera(1, _gone()), *failures, Camera(2), wait=lambda delay: bool(waited.append(delay)))
    source.read()
    source.read()
    assert waited == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert delay_s(10_000) == 5.0


def test_one_that_breaks_off_at_once_each_time_is_tried_less_and_less_often(connect: Any) -> None:
    waited: List[float] = []
    now_s = [0.0]

    def pass_time() -> None:
        now_s[0] += 3.0

    cameras = [Camera(1, _gone()), Camera(2, _gone()), Camera(3, pass_time, _gone()), Camera(4)]
    source = connect(*cameras, wait=lambda delay: bool(waited.append(delay)), clock=lambda: now_s[0])
    for _ in range(4):
        source.read()
    assert waited == [0.25, 0.5, 0.25]
    assert source.losses == 3


def test_the_first_opening_must_work(connect: Any) -> None:
    with pytest.raises(CameraError, match="not there"):
        connect(CameraError("not there"))


@pytest.mark.parametrize("error", [RefusedError("wrong password"), DeviceError("no GStreamer"), ValueError("a bug")])
def test_what_stays_wrong_is_raised_and_not_tried_again(connect: Any, error: Exception) -> None:
    later = Camera(2)
    source = connect(Camera(1, _gone()), error, later)
    source.read()
    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            source.read()
    assert source.state == "lost"
    assert not later.reading.is_set()


def test_a_stream_that_turns_out_wrong_while_it_is_read_is_raised(connect: Any) -> None:
    source = connect(Camera(1, RefusedError("unknown codec")))
    source.read()
    with pytest.raises(RefusedError, match="unknown codec"):
        source.read()
    assert source.losses == 0


def test_close_returns_while_the_driver_does_not(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtda_runtime.sources.reconnect._STOP_S", 0.1)  # of all tests but this it is without an end
    stuck = threading.Event()
    camera = Camera(1, stuck=stuck)
    source = connect(camera)
    source.read()
    assert camera.reading.wait(PATIENCE_S)
    closer = threading.Thread(target=source.close)
    closer.start()
    closer.join(PATIENCE_S)
    assert not closer.is_alive() and not camera.closed_by
    stuck.set()
    assert _camera_threads_end()
    assert camera.closed_by == ["rtda-camera"], "closed by the thread that read it, once it came back"


class Interruptible(Camera):
    """Its read ends when it is interrupted, and only then."""

    def interrupt(self) -> None:
        self._stuck.set()


@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_a_source_that_can_be_interrupted_is_and_its_thread_ends(connect: Any, end: str) -> None:
    camera = Interruptible(1)
    source = connect(camera)
    source.read()
    assert camera.reading.wait(PATIENCE_S)
    getattr(source, end)()
    assert _camera_threads_end()
    assert camera.closed_by == ["rtda-camera"]


def test_what_is_opened_while_the_source_is_closed_is_closed_at_once(connect: Any, caplog: Any) -> None:
    opening, go_on = threading.Event(), threading.Event()
    late = Camera(2)

    def open_slowly() -> Source:
        opening.set()
        assert go_on.wait(PATIENCE_S)
        return late

    source = ReconnectingSource(open_slowly, first=Camera(1, _gone()), drain=False, wait=lambda _: False)
    source.read()
    assert opening.wait(PATIENCE_S)
    with caplog.at_level(logging.INFO):
        source.interrupt()
        go_on.set()
        assert _camera_threads_end()
    assert late.closed_by == ["rtda-camera"] and not late.reading.is_set()
    assert "first good frame" not in caplog.text and source.state == "lost"


@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_a_reader_that_waits_for_a_lost_camera_is_let_go(connect: Any, end: str) -> None:
    waiting = threading.Event()
    raised: List[Exception] = []
    source = connect(Camera(1, _gone()), *([CameraError("still gone")] * 1000), wait=None)
    source.on_state = lambda state, sentence: waiting.set()

    def read() -> None:
        try:
            while True:
                source.read()
        except SourceError as err:
            raised.append(err)

    reader = threading.Thread(target=read)
    reader.start()
    assert waiting.wait(PATIENCE_S)
    getattr(source, end)()
    reader.join(PATIENCE_S)
    assert _camera_threads_end() and not reader.is_alive()
    assert "is closed" in str(raised[0])


def test_before_the_first_read_the_newest_frame_waits(connect: Any) -> None:
    camera = Camera(*range(7))
    source = connect(camera, drain=True)
    assert camera.reading.wait(PATIENCE_S)
    assert source.read().sequence == 6


def test_a_hundred_losses_leave_nothing_behind(connect: Any) -> None:
    threads = threading.active_count()
    made: List[Any] = []
    closed: Set[int] = set()

    def camera() -> Source:
        one = Camera(1, 2, _gone())
        number = len(made)
        one.close = lambda: closed.add(number)  # type: ignore[method-assign]
        made.append(weakref.ref(one))
        return one

    source = ReconnectingSource(camera, drain=False, wait=lambda _: False)
    for _ in range(200):
        source.read()
    assert threading.active_count() == threads + 1
    source.close()
    assert _camera_threads_end()
    assert len(closed) == len(made) >= 100
    gc.collect()
    assert sum(reference() is not None for reference in made) <= 1, "what was lost is let go of"


def test_only_live_sources_are_wrapped(tmp_path: Any) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    with open_source(tmp_path, reconnect=True) as source:
        assert not isinstance(source, ReconnectingSource)
