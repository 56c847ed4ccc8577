from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.models import tiny_spec
from runtime.streams import read_images

from rtda_deploy.errors import ConfigError, FileAccessError, FrameError, MissingPackageError
from rtda_deploy.optional import available
from rtda_runtime import Overlay, Result, VideoSink, open_source
from rtda_runtime.sinks import MaskFolder
from rtda_runtime.sources.synthetic import bars

needs_av = pytest.mark.skipif(not available("av"), reason="PyAV is not installed: pip install av")


def _write(path: Path, pictures: List[np.ndarray], fps: float = 25.0) -> None:
    with VideoSink(path, fps) as sink:
        for picture in pictures:
            sink.write(picture)


def _result(picture: np.ndarray) -> Result:
    return Result(picture, np.zeros(picture.shape[:2], np.uint8), 0, 3, 0, {}, tiny_spec())


@needs_av
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("count", [1, 2, 37])
def test_every_frame_is_in_the_file(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"clip{suffix}"
    _write(path, [bars(number, (96, 64)) for number in range(count)], fps=12.5)
    assert len(read_images(path)) == count
    with open_source(path) as source:
        assert (source.size_wh, source.fps) == ((96, 64), pytest.approx(12.5))


@needs_av
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_pictures_look_the_same_again(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], (96, 1, 3))
    _write(tmp_path / f"clip{suffix}", [ramp] * 10)
    # quantisation of a lossy codec: a few grey levels
    assert np.abs(read_images(tmp_path / f"clip{suffix}")[9].astype(int) - ramp).mean() < 4


@needs_av
@pytest.mark.parametrize(("suffix", "fourcc"), [(".mp4", "avc1"), (".webm", "VP80")])
def test_the_codec_is_one_that_browsers_play(tmp_path: Path, suffix: str, fourcc: str) -> None:
    path = tmp_path / f"clip{suffix}"
    _write(path, [bars(0, (64, 48))] * 3)
    found = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    assert found in (fourcc, "h264")  # OpenCV 5 names the codec, older ones the tag in the file
    import av

    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"  # browsers play no other


@needs_av
def test_mp4_begins_with_its_index_so_that_it_plays_while_it_loads(tmp_path: Path) -> None:
    _write(tmp_path / "clip.mp4", [bars(0, (64, 48))] * 3)
    content = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@needs_av
def test_odd_sizes_get_their_last_row_and_column_twice(tmp_path: Path) -> None:
    _write(tmp_path / "clip.mp4", [bars(0, (63, 47))] * 2)
    assert read_images(tmp_path / "clip.mp4")[0].shape == (48, 64, 3)


@needs_av
@pytest.mark.parametrize("fps", [30000 / 1001, 0.5, 7, 240])
def test_any_rate_is_kept(tmp_path: Path, fps: float) -> None:
    _write(tmp_path / "clip.mp4", [bars(number, (64, 48)) for number in range(5)], fps=fps)
    with open_source(tmp_path / "clip.mp4") as source:
        assert source.fps == pytest.approx(fps, rel=1e-4)


@needs_av
def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the video before")
    sink = VideoSink(path, 25, (64, 48))
    sink.write(bars(0, (64, 48)))
    assert path.read_bytes() == b"the video before"
    sink.close()
    sink.close()
    assert len(read_images(path)) == 1 and os.listdir(tmp_path) == ["clip.mp4"]


@needs_av
def test_a_recording_survives_an_error_in_the_loop(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoSink(tmp_path / "clip.mp4", 25) as sink:
        sink.write(bars(0, (64, 48)))
        raise KeyboardInterrupt
    assert len(read_images(tmp_path / "clip.mp4")) == 1


@needs_av
def test_no_frames_is_no_file(tmp_path: Path, caplog: Any) -> None:
    VideoSink(tmp_path / "clip.mp4", 25, (64, 48)).close()
    assert os.listdir(tmp_path) == [] and "no frame" in caplog.text


@needs_av
def test_results_are_written_with_their_overlay(tmp_path: Path) -> None:
    picture = np.full((64, 96, 3), 200, np.uint8)
    with VideoSink(tmp_path / "a.mp4", 25, overlay=Overlay(tiny_spec(), alpha=1.0, legend=False)) as sink:
        assert set(sink.write(_result(picture))) == {"overlay", "encode"}
    with VideoSink(tmp_path / "b.mp4", 25) as sink:
        assert set(sink.write(_result(picture))) == {"encode"}
    road = tiny_spec().palette[0][::-1]
    assert np.abs(read_images(tmp_path / "a.mp4")[0].astype(int) - road).max() < 8
    assert np.abs(read_images(tmp_path / "b.mp4")[0].astype(int) - 200).max() < 8


@needs_av
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_film_of_a_camera_plays_at_its_true_speed_though_frames_were_dropped(tmp_path: Path, suffix: str) -> None:
    import av

    captured_ms = [1000, 1033, 1067, 1400, 1400, 2600]  # two gaps, and two frames with one stamp
    path = tmp_path / f"clip{suffix}"
    with VideoSink(path, 30, timed=True) as sink:
        for stamp_ms in captured_ms:
            sink.write(dataclasses.replace(_result(bars(0, (64, 48))), captured_ns=stamp_ms * 1_000_000))
    with av.open(str(path)) as container:
        shown_ms = [round(1000 * frame.time) for frame in container.decode(video=0)]
    assert shown_ms == [0, 33, 67, 400, 401, 1600]
    assert len(read_images(path)) == 6


@needs_av
@pytest.mark.parametrize("frames", [3, 60])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, frames: int) -> None:
    program = """
import resource, sys
import numpy as np
from rtda_deploy.errors import FileAccessError
from rtda_runtime import VideoSink
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the file may not grow any further, as on a full disk
sink = VideoSink(sys.argv[1], 25)
try:
    for seed in range(int(sys.argv[2])):
        sink.write(np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    sink.close()
except FileAccessError as err:
    print(err)
sink.close()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "clip.mp4"), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "clip.mp4: File too large" in done.stdout and done.stderr == ""
    assert os.listdir(tmp_path) == []


@needs_av
def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "clip.mp4", 25, (64, 48)) as sink:
        with pytest.raises(FrameError, match="frame is 32x48, the video is 64x48"):
            sink.write(bars(0, (32, 48)))
        with pytest.raises(FrameError, match="grey"):
            sink.write(np.zeros((48, 64), np.uint8))
        sink.write(bars(0, (64, 48)))


@needs_av
def test_closing_waits_for_the_frame_that_is_being_written(tmp_path: Path) -> None:
    sink, order = VideoSink(tmp_path / "clip.mp4", 25), []
    sink.write(bars(0, (64, 48)))
    assert sink._encoder is not None
    encoding, release, add, finish = threading.Event(), threading.Event(), sink._encoder.add, sink._encoder.finish

    def slowly(*args: Any) -> None:
        encoding.set()
        assert release.wait(PATIENCE_S)
        add(*args)
        order.append("added")

    def note() -> None:
        order.append("finished")
        finish()

    sink._encoder.add, sink._encoder.finish = slowly, note  # type: ignore[method-assign]
    threads = [threading.Thread(target=sink.write, args=(bars(1, (64, 48)),))]
    threads[0].start()
    assert encoding.wait(PATIENCE_S)
    threads += [threading.Thread(target=sink.close) for _ in range(2)]
    for closing in threads[1:]:
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
    release.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert order == ["added", "finished"] and len(read_images(tmp_path / "clip.mp4")) == 2


@needs_av
def test_writing_after_close_is_an_error(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "clip.mp4", 25)
    sink.write(bars(0, (64, 48)))
    sink.close()
    with pytest.raises(FileAccessError, match="closed"):
        sink.write(bars(0, (64, 48)))


@pytest.mark.parametrize(
    ("name", "fps", "size_wh"),
    [
        ("clip.avi", 25, None),
        ("clip", 25, None),
        ("clip.mp4", 0, None),
        ("clip.mp4", -1, None),
        ("clip.mp4", 25, (0, 4)),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, name: str, fps: float, size_wh: Any) -> None:
    with pytest.raises(ConfigError):
        VideoSink(tmp_path / name, fps, size_wh)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said_before_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError, match=r"file/clip\.webm"):
        VideoSink(tmp_path / "file" / "clip.webm", 25)


# Without PyAV


def _without_pyav(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # how Python marks what cannot be imported
    try:
        VideoSink(folder / "probe.webm", 25).close()
    except MissingPackageError:
        pytest.skip("this OpenCV encodes no VP8")


def test_without_pyav_opencv_writes_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_pyav(tmp_path, monkeypatch)
    _write(tmp_path / "clip.webm", [bars(number, (64, 48)) for number in range(9)])
    assert len(read_images(tmp_path / "clip.webm")) == 9


def test_without_any_encoder_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(cv2, "VideoWriter", lambda *_: SimpleNamespace(isOpened=lambda: False, release=lambda: None))
    with pytest.raises(MissingPackageError, match="package av") as caught:
        VideoSink(tmp_path / "clip.mp4", 25)
    assert "pip install" in caught.value.hint and os.listdir(tmp_path) == []


def test_opencv_does_not_hide_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing:
        """Loses the fifth picture, as on a full disk."""

        def __init__(self, *options: Any) -> None:
            self._writer, self._count = writer(*options), 0
            self.isOpened, self.release = self._writer.isOpened, self._writer.release

        def write(self, picture: np.ndarray) -> None:
            self._count += 1
            if self._count != 5:
                self._writer.write(picture)

    writer = cv2.VideoWriter
    _without_pyav(tmp_path, monkeypatch)
    monkeypatch.setattr(cv2, "VideoWriter", Losing)
    sink = VideoSink(tmp_path / "clip.webm", 25)
    for number in range(10):
        sink.write(bars(number, (64, 48)))
    with pytest.raises(FileAccessError, match="9 of 10 frames"):
        sink.close()
    assert os.listdir(tmp_path) == []


# Masks


def test_masks_are_written_as_class_indices(tmp_path: Path) -> None:
    mask = np.arange(48, dtype=np.uint8).reshape(6, 8)
    result = Result(np.zeros((6, 8, 3), np.uint8), mask, 0, 42, 0, {}, tiny_spec())
    with MaskFolder(tmp_path / "masks") as sink:
        assert set(sink.write(result)) == {"encode"}
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "masks" / "000042.png"), cv2.IMREAD_UNCHANGED), mask)
