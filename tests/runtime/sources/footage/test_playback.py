"""Footage as a source: which frames are played, when, and what such an address may be."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import numpy_segmenter
from runtime.source_contract import OpenSource, SourceContract
from runtime.sources.footage.videos import number_of, write_video
from runtime.streams import read_frames

from rtda_deploy.errors import ConfigError, FileAccessError, RtdaError, SourceError
from rtda_runtime import Pipeline
from rtda_runtime.sources import open_source
from rtda_runtime.sources.footage.playback import Part, Playback, parse_playback, unpaced
from rtda_runtime.sources.footage.video import open_video_recording
from rtda_runtime.sources.kinds import source_files
from rtda_runtime.sources.stream import StreamSource


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos: frames 0 to 99 and 0 to 4, 25 a second."""
    folder = tmp_path_factory.mktemp("drives")
    write_video(folder / "drive2.mp4", count=100, options={"g": "10", "x264-params": "scenecut=0"})
    write_video(folder / "drive10.mkv", count=5)
    return folder


class TestPlayback(SourceContract):
    size_wh = (96, 64)

    @pytest.fixture()
    def open_short(self, drives: Path) -> OpenSource:
        return lambda: open_source(f"video:{drives}/drive10.mkv")


class TestPacedPlayback(TestPlayback):
    @pytest.fixture()
    def open_short(self, drives: Path) -> OpenSource:
        return lambda: open_source(f"{drives}/drive10.mkv?speed=100")


def _played(address: str) -> Any:
    with open_source(address) as source:
        frames = read_frames(source)
        assert source.num_frames == len(frames) and not source.live
    return [number_of(frame.image) for frame in frames], [round(frame.recorded_ns / 1e6) for frame in frames]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ("every=1s", [0, 30, 50, 80]),
        ("every=0.5s&from=1s&to=2s", [25, 38]),
        ("from=3.9s", [98, 99]),
        ("to=80ms&speed=0", [0, 1]),
    ],
)
@pytest.mark.parametrize("kind", ["video:", "", "file://"])
def test_options_say_which_frames_are_played(options: str, numbers: List[int], kind: str, drives: Path) -> None:
    found, times_ms = _played(f"{kind}{drives / 'drive2.mp4'}?{options}")
    assert found == numbers and times_ms == [40 * number for number in found]


@pytest.mark.parametrize("typed", ["{0}", "video:{0}", "{0}/drive2.mp4,{0}/drive10.mkv", "video:{0}/*.m*"])
def test_several_videos_are_played_one_after_the_other_in_natural_order(typed: str, drives: Path) -> None:
    numbers, times_ms = _played(typed.format(drives))
    assert numbers == [*range(100), *range(5)]
    assert times_ms == [40 * number for number in range(105)], "the times of the second go on from the first"
    assert source_files(typed.format(drives)) == [drives / "drive2.mp4", drives / "drive10.mkv"]


def test_a_video_file_alone_is_played_as_a_film(drives: Path) -> None:
    with open_source(drives / "drive10.mkv") as source:
        assert isinstance(source, StreamSource)


class _Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.waits_s: List[float] = []

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_ns += round(seconds * 1e9)


def _paced(path: Path, speed: float, clock: _Time, numbers: Any = None) -> Playback:
    recording = open_video_recording(path)
    part = Part(recording, list(range(recording.num_frames)) if numbers is None else numbers)
    return Playback("drive", [part], speed=speed, clock=clock, sleep=clock.sleep)


def test_at_a_speed_frames_come_at_their_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "uneven.mp4", count=4, times_ms=[0, 40, 1000, 1040])
    clock = _Time()
    with _paced(path, 2.0, clock) as source:
        clock.now_ns = 7_000_000_000  # what lies between opening and the first read does not count
        came_ms = [(frame.captured_ns - 7_000_000_000) / 1e6 for frame in read_frames(source)[1:]]
    assert came_ms == pytest.approx([20, 500, 520], abs=0.01)


def test_a_reader_that_was_away_gets_no_burst(tmp_path: Path) -> None:
    clock = _Time()
    with _paced(write_video(tmp_path / "a.mp4"), 1.0, clock) as source:
        source.read()
        clock.now_ns += 10_000_000_000
        for _ in range(3):
            source.read()
    assert clock.waits_s == pytest.approx([0.04, 0.04], abs=1e-6)


def test_a_long_wait_is_told_and_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=2, times_ms=[0, 3_600_000])
    caught: List[BaseException] = []
    with open_source(f"{path}?speed=1") as source:
        assert source.read() is not None and source.state == "live"

        def wait() -> None:
            try:
                source.read()
            except SourceError as err:
                caught.append(err)

        thread = threading.Thread(target=wait)
        thread.start()
        until_s = time.monotonic() + PATIENCE_S
        while source.state != "stale" and time.monotonic() < until_s:
            time.sleep(0.005)
        assert source.state == "stale", "a pipeline must not take it for a source that hangs"
        source.interrupt()
        thread.join(PATIENCE_S)
    assert not thread.is_alive() and "is closed" in str(caught[0])


def test_at_its_own_times_the_newest_frame_wins_where_that_is_asked(drives: Path) -> None:
    def until_all_are_read() -> None:
        until_s = time.monotonic() + PATIENCE_S
        while 0 < pipeline.stats["captured"] < 100 and time.monotonic() < until_s:
            time.sleep(0.005)

    source = open_source(f"{drives}/drive2.mp4?speed=40")
    with Pipeline(numpy_segmenter(before=until_all_are_read), source, policy="newest") as pipeline:
        numbers = [number_of(result.frame) for result in pipeline]
    assert numbers[-1] == 99 and len(numbers) <= 3 and pipeline.stats["dropped"] >= 97
    with Pipeline(numpy_segmenter(), open_source(f"{drives}/drive10.mkv?speed=20")) as pipeline:
        assert len(list(pipeline)) == 5, "nothing is dropped where nothing is asked"


def test_a_rate_passes_over_frames_of_a_paced_recording_and_does_not_slow_it(drives: Path) -> None:
    clock = _Time()
    source = _paced(drives / "drive2.mp4", 1.0, clock)
    with Pipeline(numpy_segmenter(), source, rate=5, policy="every", clock=clock) as pipeline:
        times_ms = [round(result.recorded_ns / 1e6) for result in pipeline if result.recorded_ns is not None]
    assert times_ms == [0, *range(160, 3961, 200)], "a quarter of a period early is not too early"


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ("every=1s&loop=1", "option 'loop' is unknown", "topic=, from=, to=, every=, speed="),
        ("evry=1s", "option 'evry' is unknown", "topic=, from=, to=, every=, speed="),
        ("speed=fast", "speed=fast is no speed", "1 (at its own times)"),
        ("speed=-1", "speed=-1 is no speed", "1 (at its own times)"),
        ("topic=/front", "has no topics", "leave topic= away"),
        ("every=0", "no time between frames", "every=0.5s"),
    ],
)
def test_options_that_make_no_sense_are_told(options: str, said: str, hint: str, drives: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(f"{drives}/drive2.mp4?{options}")
    assert said in caught.value.message and hint in caught.value.hint


def test_a_part_without_frames_says_how_long_the_video_is(drives: Path) -> None:
    with pytest.raises(SourceError, match="no frame between") as caught:
        open_source(f"{drives}/drive2.mp4?from=1:00")
    assert "3.96 s long" in caught.value.hint


@pytest.mark.parametrize("address", ["video:nowhere.mp4", "nowhere.mp4?every=1s", "a.mp4,b.mp4", "video:*.mp4"])
def test_a_video_that_is_not_there_is_named(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((FileAccessError, SourceError), match=r"nowhere\.mp4|a\.mp4|\*\.mp4"):
        open_source(address)
    assert source_files(address) == []


def test_a_mistyped_camera_with_options_does_not_show_its_password() -> None:
    for address in ("user:hunter2@host?every=1s", "video:user:hunter2@host", "rtsp:/user:hunter2@host/1?speed=1"):
        with pytest.raises(RtdaError) as caught:
            open_source(address)
        assert "hunter2" not in str(caught.value) + caught.value.hint + caught.value.why


def test_a_folder_of_pictures_and_videos_gives_its_pictures_and_says_so(
    drives: Path, tmp_path: Path, caplog: Any
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "drive.mp4").write_bytes((drives / "drive10.mkv").read_bytes())
    with open_source(tmp_path) as source:
        assert source.num_frames == 1
    assert "drive.mp4" in caplog.text and "video:" in caplog.text


def test_a_bag_is_played_at_its_own_times_and_a_video_as_it_is_read() -> None:
    assert parse_playback("bag:run.mcap")[1] == parse_playback("run.mcap")[1] == 1.0
    assert parse_playback("video:drive.mp4")[1] == 0.0
    assert parse_playback("bag:run.mcap?speed=0.5")[1] == 0.5


@pytest.mark.parametrize(
    ("typed", "measured"),
    [
        ("run.mcap", "run.mcap?speed=0"),
        ("bag:run?topic=/front", "bag:run?topic=/front&speed=0"),
        ("run.mcap?speed=2", "run.mcap?speed=2"),
        ("drive.mp4", "drive.mp4"),
        ("video:drive.mp4?from=1s", "video:drive.mp4?from=1s"),
        ("rtsp://10.0.0.7/1?x", "rtsp://10.0.0.7/1?x"),
        ("0", "0"),
    ],
)
def test_what_is_measured_is_read_as_fast_as_it_goes_unless_a_speed_is_typed(typed: str, measured: str) -> None:
    assert unpaced(typed) == measured
