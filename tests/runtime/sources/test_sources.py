from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any, Iterator, List

import cv2
import numpy as np
import pytest
from runtime.fakes import FakeClock
from runtime.source_contract import SECRET, OpenSource, SourceContract
from runtime.streams import mjpeg_server, read_images
from turned_files import turned

from rtda_deploy.errors import CameraError, ConfigError, DeviceError, FileAccessError, SourceError
from rtda_runtime.sources import open_source, v4l2
from rtda_runtime.sources.base import frame_rate
from rtda_runtime.sources.gstreamer import csi_pipeline
from rtda_runtime.sources.kinds import CameraRequest
from rtda_runtime.sources.stream import open_stream
from rtda_runtime.sources.synthetic import BarsSource, bars
from rtda_runtime.sources.v4l2 import configure, list_cameras, open_camera


def _pictures(count: int = 5, size_wh: Any = (64, 48)) -> List[np.ndarray]:
    return [bars(number, size_wh) for number in range(count)]


def _video(path: Path, pictures: List[np.ndarray], codec: str = "mp4v", fps: float = 25.0) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


class TestVideoFile(SourceContract):
    @pytest.fixture()
    def open_short(self, tmp_path: Path) -> OpenSource:
        path = _video(tmp_path / "clip.mp4", _pictures())
        return lambda: open_source(path)

    def test_rate_and_length_are_the_files(self, open_short: OpenSource) -> None:
        with open_short() as source:
            assert (source.fps, source.num_frames) == (25.0, 5)


class TestPictureFolder(SourceContract):
    @pytest.fixture()
    def open_short(self, tmp_path: Path) -> OpenSource:
        for number, picture in enumerate(_pictures()):
            cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        return lambda: open_source(f"{tmp_path}/")


class TestFileUri(SourceContract):
    @pytest.fixture()
    def open_short(self, tmp_path: Path) -> OpenSource:
        path = _video(tmp_path / "my clip.mp4", _pictures())
        return lambda: open_source(path.as_uri())


class TestBars(SourceContract):
    live = True

    @pytest.fixture()
    def open_short(self) -> OpenSource:
        return lambda: open_source("test://bars?fps=500&size=64x48&frames=5")


class TestHttpStream(SourceContract):
    live = True
    ends = False

    @pytest.fixture()
    def open_short(self) -> Iterator[OpenSource]:
        with mjpeg_server(_pictures()) as address:
            yield lambda: open_source(f"http://viewer:{SECRET}@{address}/cam.mjpg?password={SECRET}&signature={SECRET}")

    def test_a_stream_that_stops_is_a_lost_camera(self, open_short: OpenSource) -> None:
        with open_short() as source:
            frames = 0
            with pytest.raises(CameraError, match="disconnected, after 5 frames") as caught:
                while source.read(5.0) is not None:
                    frames += 1
        assert frames == 5
        assert SECRET not in str(caught.value) + caught.value.hint


# Pictures


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2, 100):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((4, 4, 3), number, np.uint8))
    assert [int(image[0, 0, 0]) for image in read_images(open_source(tmp_path))] == [1, 2, 9, 10, 100]


def test_patterns_take_the_files_they_would_have_written(tmp_path: Path) -> None:
    for name, value in (("000002", 2), ("000010", 10), ("1000000", 100), ("7", 7), ("x000003", 3), ("0000004", 4)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 4, 3), value, np.uint8))
    assert [int(image[0, 0, 0]) for image in read_images(open_source(tmp_path / "%06d.png"))] == [2, 10, 100]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (np.full((5, 7), 90, np.uint8), (90, 90, 90)),
        (np.full((5, 7, 4), (10, 20, 30, 40), np.uint8), (10, 20, 30)),
        (np.full((5, 7, 3), (10 * 257, 20 * 257, 30 * 257), np.uint16), (10, 20, 30)),
        (np.full((5, 7), 90 * 257, np.uint16), (90, 90, 90)),
    ],
    ids=["grey", "alpha", "16 bit", "grey 16 bit"],
)
def test_every_kind_of_picture_becomes_bgr(tmp_path: Path, written: np.ndarray, expected: Any) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), written)
    image = read_images(open_source(tmp_path / "one.png"))[0]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((5, 7, 3), expected))


@pytest.mark.parametrize("size_wh", [(1, 1), (8000, 4000)])
def test_pictures_of_any_size_work(tmp_path: Path, size_wh: Any) -> None:
    cv2.imwrite(str(tmp_path / "one.bmp"), np.zeros((size_wh[1], size_wh[0], 3), np.uint8))
    with open_source(tmp_path / "one.bmp") as source:
        assert source.size_wh == size_wh
        assert read_images(source)[0].shape == (size_wh[1], size_wh[0], 3)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no picture")
    with open_source(tmp_path) as source:
        source.read()
        with pytest.raises(SourceError, match=r"2\.png is no picture"):
            source.read()


def test_half_a_picture_is_named_and_not_filled_up(tmp_path: Path) -> None:
    content = cv2.imencode(".jpg", bars(0, (64, 64)))[1].tobytes()
    (tmp_path / "1.jpg").write_bytes(content)
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    with open_source(tmp_path) as source:
        source.read()
        with pytest.raises(SourceError, match=r"2\.jpg is a damaged JPEG or cut off"):
            source.read()


def test_a_dark_picture_of_16_bits_is_taken_behind_a_bright_one_and_refused_before(tmp_path: Path) -> None:
    for name, value in (("1.png", 60000), ("2.png", 4000)):
        assert cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), value, np.uint16))
    with open_source(tmp_path) as source:
        assert [int(image.max()) for image in read_images(source)] == [60000 >> 8, 4000 >> 8]
    with pytest.raises(SourceError, match="12 bits in a 16-bit file"):
        open_source(tmp_path / "2.png")


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(turned(".webp", np.zeros((16, 32, 3), np.uint8), 6))
    with open_source(tmp_path / "a.webp") as source:
        assert source.size_wh == (16, 32)


def test_a_device_in_a_folder_of_pictures_is_an_error_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("/dev/null")  # of /dev/zero a reader without this check would take all memory
    with pytest.raises(FileAccessError, match=r"1\.png is a device"):
        open_source(tmp_path)


def test_an_empty_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    with pytest.raises(FileAccessError, match=r"1\.png is empty"):
        open_source(tmp_path)


@pytest.mark.parametrize("others", [[], ["notes.txt"], [".hidden.png"]])
def test_folder_without_pictures_is_an_error(tmp_path: Path, others: List[str]) -> None:
    for name in others:
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match="no pictures in"):
        open_source(tmp_path)


def test_pattern_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file fits"):
        open_source(tmp_path / "%04d.png")
    with pytest.raises(FileAccessError):
        open_source(tmp_path / "gone" / "%04d.png")


# Videos


@pytest.mark.parametrize(("claimed", "rate"), [(25.0, 25.0), (0.5, 0.5), (0.0, None), (-1.0, None), (90_000.0, None)])
def test_a_rate_that_is_a_time_base_is_none(claimed: float, rate: Any) -> None:
    assert frame_rate(claimed) == rate


def test_missing_video_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"gone\.mp4"):
        open_source(tmp_path / "gone.mp4")


def test_a_word_that_is_no_file_lists_the_known_kinds() -> None:
    with pytest.raises(FileAccessError) as caught:
        open_source("webcam")
    assert "test://bars" in caught.value.hint


def test_empty_video_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(FileAccessError, match="0 bytes"):
        open_source(tmp_path / "empty.mp4")


@pytest.mark.parametrize("content", [b"this is no video", bytes(range(256)) * 100])
def test_what_is_no_video_is_a_source_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"odd\.mp4"):
        open_source(tmp_path / "odd.mp4")


def test_video_cut_off_gives_what_can_be_read_and_warns(tmp_path: Path, caplog: Any) -> None:
    noise = np.random.default_rng(0)
    pictures = [noise.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    whole = _video(tmp_path / "whole.avi", pictures, codec="MJPG").read_bytes()
    index = whole.rindex(b"idx1")
    damaged = bytearray(whole)
    damaged[index // 2 : index] = bytes(index - index // 2)  # the second half of the pictures is zeros
    (tmp_path / "cut.avi").write_bytes(damaged)
    with caplog.at_level(logging.WARNING), open_source(tmp_path / "cut.avi") as source:
        assert source.num_frames == 40
        read = len(read_images(source))
    assert 10 <= read < 40
    assert f"ended after {read} of 40 frames" in caplog.text


def test_opencv_and_ffmpeg_print_nothing(tmp_path: Path) -> None:
    (tmp_path / "odd.mp4").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "odd.png").write_bytes(b"no picture")
    program = """
import sys
from rtda_deploy.errors import RtdaError
from rtda_runtime import open_source
for uri in sys.argv[1:]:
    try:
        open_source(uri)
    except RtdaError:
        print("refused")
"""
    uris = [str(tmp_path / "odd.mp4"), str(tmp_path / "odd.png"), "http://127.0.0.1:9/", "rtsp://127.0.0.1:9/"]
    # In a process of its own: FFmpeg takes its log level from the first file that a process opens.
    done = subprocess.run([sys.executable, "-c", program, *uris], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n" * 4, "")


@pytest.mark.parametrize("kind", ["video", "stream", "bars"])
def test_no_frame_needs_new_memory_once_the_first_are_let_go(kind: str, tmp_path: Path) -> None:
    pictures = _pictures(20, (320, 240))
    with contextlib.ExitStack() as stack:
        if kind == "stream":  # longer, because frames that a busy machine lets wait are left out
            uri = f"http://{stack.enter_context(mjpeg_server(10 * pictures))}/"
        else:
            uri = "test://bars?fps=0&size=320x240" if kind == "bars" else str(_video(tmp_path / "a.mp4", pictures))
        source = stack.enter_context(open_source(uri))
        for _ in range(5):
            source.read(5.0)
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for _ in range(10):
            source.read(5.0)
        _, most = tracemalloc.get_traced_memory()
    assert most < 320 * 240 * 3


def test_a_frame_that_is_held_is_not_written_into(tmp_path: Path) -> None:
    path = _video(tmp_path / "clip.avi", [np.full((48, 64, 3), 8 * number, np.uint8) for number in range(20)], "MJPG")
    with open_source(path) as source:
        kept = [source.read() for _ in range(3)]
        view = source.read().image[10:20]  # type: ignore[union-attr]
        while source.read() is not None:
            pass
    brightness = [int(frame.image.mean()) for frame in kept if frame is not None] + [int(view.mean())]
    assert brightness == [pytest.approx(8 * number, abs=2) for number in range(4)]


# The test picture


def test_bars_are_the_same_everywhere() -> None:
    picture = bars(0, (640, 480))
    assert picture[0, 0].tolist() == [255, 255, 255] and picture[0, 639].tolist() == [0, 0, 0]
    assert picture[0, 100].tolist() == [0, 255, 255]  # yellow, BGR
    np.testing.assert_array_equal(bars(3, (640, 480))[0, :-12], picture[0, 12:])  # moved by 4 pixels a frame
    assert bars(7, (1, 1)).shape == (1, 1, 3)


def test_bars_keep_the_pace_of_a_camera() -> None:
    clock = FakeClock()
    source = BarsSource(fps=10, num_frames=9, size_wh=(8, 8), clock=clock, sleep=clock.sleep)
    stamps = [source.read().captured_ns for _ in range(4)]  # type: ignore[union-attr]
    assert np.diff(stamps).tolist() == [100_000_000] * 3
    clock.sleep(0.35)  # a reader that comes late gets the frame at once, and no burst afterwards
    late = [source.read().captured_ns for _ in range(2)]  # type: ignore[union-attr]
    assert np.diff([stamps[-1], *late]).tolist() == [350_000_000, 100_000_000]


def test_bars_slower_than_the_timeout_are_an_error() -> None:
    clock = FakeClock()
    source = BarsSource(fps=0.1, clock=clock, sleep=clock.sleep)
    source.read(2.0)
    with pytest.raises(CameraError, match="no frame for 2 s"):
        source.read(2.0)


@pytest.mark.parametrize(
    "uri",
    ["test://stripes", "test://", "test://bars?fps=fast", "test://bars?size=64", "test://bars?size=0x4",
     "test://bars?frames=0", "test://bars?speed=3", "test://bars?fps=-1", "test://bars?fps="],
)  # fmt: skip
def test_odd_test_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(uri)
    assert uri in caught.value.message


# Addresses


@pytest.mark.parametrize("uri", ["foo://x", "", "  "])
def test_unknown_addresses_list_the_known_kinds(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(uri)
    assert "rtsp://" in caught.value.hint


@pytest.mark.parametrize(
    "typo",
    ["rtsp:/admin:{}@10.0.0.2/1", "admin:{}@10.0.0.2/1", "rtsp//admin:{}@h/1", "'rtsp://admin:{}@h/1'",
     "admin:{}%d@h", "rtsp:/admin:{}/x@h/%04d.png", "rtsp:/h/v?password={}", "admin:{}@h" + "x" * 300],
)  # fmt: skip
def test_a_mistyped_address_is_no_file_and_its_password_in_no_error(typo: str) -> None:
    with pytest.raises(FileAccessError, match=r"cannot read .*\*\*\*") as caught:
        open_source(typo.format(SECRET))
    err = caught.value
    assert SECRET not in f"{err!r} {err.why} {err.hint} {err.__cause__!r} {err.__context__!r}"
    assert "rtsp://user:password@host" in err.hint


def test_a_file_whose_name_looks_like_a_password_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("10:30@home.png", _pictures(1)[0])
    assert len(read_images(open_source("10:30@home.png"))) == 1


@pytest.mark.parametrize("scheme", ["rtsp", "http", "foo"])
def test_no_error_holds_a_password(scheme: str, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises((CameraError, ConfigError)) as caught:
        open_source(f"{scheme}://user:{SECRET}@127.0.0.1:9/x?password={SECRET}")
    assert SECRET not in f"{caught.value} {caught.value.hint} {caught.value.why} {caplog.text}"


def test_a_server_that_says_nothing_is_given_up() -> None:
    with mjpeg_server([], hang=True) as address, pytest.raises(CameraError, match=r"no video within 0\.5 s"):
        open_stream(f"http://{address}/", timeout_s=0.5)


def test_camera_settings_are_for_cameras(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be asked for a size"):
        open_source("test://bars", size_wh=(640, 480))


# Cameras


def test_missing_camera_says_which_there_are() -> None:
    with pytest.raises(CameraError, match="there is no camera /dev/video63") as caught:
        open_source(63)
    assert caught.value.exit_code == 3
    assert "rtda-deploy cameras" in caught.value.hint
    with pytest.raises(CameraError):
        open_source("/dev/video63")


def test_camera_without_permission_says_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video0").touch()
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(CameraError, match="no permission") as caught:
        open_camera(tmp_path / "video0")
    assert "usermod -aG video" in caught.value.hint


def test_device_that_is_no_camera_says_who_may_hold_it(tmp_path: Path) -> None:
    (tmp_path / "video63").touch()
    with pytest.raises(CameraError, match="cannot be opened"):
        open_camera(tmp_path / "video63")


class _Driver:
    """A cv2.VideoCapture that takes every setting but those it has ``instead``; gives ``frames`` grey pictures."""

    def __init__(self, instead: Any = None, frames: int = 3, stamps_ns: Any = ()) -> None:
        self.values = dict(instead or {})
        self.frames = frames
        self.stamps_ns = list(stamps_ns)
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        self.values.setdefault(key, value)
        return True

    def get(self, key: int) -> float:
        return float(self.values.get(key, 0.0))

    def grab(self) -> bool:
        self.frames -= 1
        if self.stamps_ns:
            self.values[cv2.CAP_PROP_POS_MSEC] = self.stamps_ns.pop(0) / 1e6
        return self.frames >= 0

    def retrieve(self, out: Any = None) -> Any:
        return True, np.full((48, 64, 3), 90, np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture()
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make ``driver`` what OpenCV opens; gives the path of its device."""

    def plug_in_(driver: _Driver) -> Path:
        (tmp_path / "video0").touch()
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: driver)
        return tmp_path / "video0"

    return plug_in_


def test_a_camera_says_what_was_asked_and_what_it_gives(plug_in: Any) -> None:
    device = plug_in(_Driver())
    with open_camera(device, CameraRequest((64, 48), 30, "MJPG")) as source:
        assert source.asked == {"size": "64x48", "fps": "30", "format": "MJPG"}
        assert source.granted == {"size": "64x48", "fps": "30", "format": "MJPG"}
        assert source.live and source.name == str(device)


def test_frames_carry_the_time_of_the_camera_driver(plug_in: Any) -> None:
    now_ns = time.perf_counter_ns()
    stamps_ns = [now_ns - 30_000_000, now_ns - 20_000_000, now_ns - 10_000_000]
    with open_camera(plug_in(_Driver(stamps_ns=stamps_ns))) as source:
        assert source.stamp == "driver"
        captured = [source.read().captured_ns for _ in range(3)]  # type: ignore[union-attr]
    assert captured == [pytest.approx(stamp, abs=1000) for stamp in stamps_ns]


@pytest.mark.parametrize("clock", ["none", "wall", "ahead"])
def test_a_driver_on_another_clock_is_not_believed(plug_in: Any, clock: str) -> None:
    before_ns = time.perf_counter_ns()
    stamp_ns = {"none": 0, "wall": time.time_ns(), "ahead": before_ns + 60_000_000_000}[clock]
    with open_camera(plug_in(_Driver(stamps_ns=[stamp_ns] * 3))) as source:
        frame = source.read()
        assert source.stamp == "arrival"
    assert frame is not None and before_ns <= frame.captured_ns <= time.perf_counter_ns()


def test_a_camera_that_is_unplugged_is_lost(plug_in: Any) -> None:
    with open_camera(plug_in(_Driver(frames=2))) as source:
        source.read()
        source.read()
        with pytest.raises(CameraError, match="disconnected, after 2 frames"):
            source.read()


@pytest.mark.parametrize("code", ["RG10", "BA81", "GRBG"])
def test_a_raw_sensor_points_to_the_camera_connector(plug_in: Any, code: str) -> None:
    driver = _Driver({cv2.CAP_PROP_FOURCC: cv2.VideoWriter_fourcc(*code)}, frames=0)
    with pytest.raises(CameraError, match=f"raw sensor data .{code}") as caught:
        open_camera(plug_in(driver))
    assert "csi://0" in caught.value.hint
    assert driver.released


class TestV4l2(SourceContract):
    live = True
    ends = False

    @pytest.fixture()
    def open_short(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenSource:
        (tmp_path / "video0").touch()
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: _Driver(frames=self.frames))
        return lambda: open_camera(tmp_path / "video0")


def test_a_camera_is_opened_again_by_the_name_that_stays(
    plug_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = plug_in(_Driver())
    opened: List[Any] = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda target, _: opened.append(target) or _Driver())
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    stays = tmp_path / "v4l" / "by-id" / "usb-cam"
    stays.symlink_to(device)
    open_again = v4l2.opener("0", CameraRequest(), tmp_path)
    with open_again() as source:
        assert source.name == str(device)
    stays.unlink()
    device.rename(tmp_path / "video3")
    stays.symlink_to(tmp_path / "video3")
    with open_again() as source:
        assert source.name == str(device), "as it was typed"
    assert opened == [0, 3]


@pytest.mark.parametrize(
    ("key", "instead", "message"),
    [
        (cv2.CAP_PROP_FRAME_WIDTH, 640, "width 1280, it offered 640"),
        (cv2.CAP_PROP_FPS, 15, "rate 60, it offered 15"),
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"YUYV"), "format MJPG, it offered YUYV"),
    ],
)
def test_a_setting_the_camera_refuses_is_an_error(key: int, instead: float, message: str) -> None:
    driver = _Driver({key: float(instead)})
    with pytest.raises(CameraError, match=message):
        configure(driver, Path("/dev/video0"), CameraRequest((1280, 720), 60, "MJPG"))
    assert driver.released


@pytest.mark.parametrize("uri", ["csi://0", "gst:videotestsrc ! appsink"])
def test_gstreamer_sources_say_that_this_opencv_has_none(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "GStreamer: NO")
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(DeviceError, match="needs GStreamer") as caught:
        open_source(uri)
    assert "built without" in caught.value.why
    assert "--system-site-packages" in caught.value.hint


def test_csi_pipeline_keeps_only_the_newest_frame() -> None:
    pipeline = csi_pipeline("csi://1", CameraRequest((1280, 720), 60))
    assert "sensor-id=1" in pipeline and "width=1280, height=720, framerate=60/1" in pipeline
    assert "drop=true max-buffers=1" in pipeline


def test_cameras_are_listed_with_names_and_permission(tmp_path: Path) -> None:
    dev, sys_class = tmp_path / "dev", tmp_path / "sys"
    for number, name, index in ((10, "Metadata", "1"), (2, "USB Camera", "0")):
        folder = sys_class / f"video{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "index").write_text(index)
        dev.mkdir(exist_ok=True)
        (dev / f"video{number}").touch()
    (dev / "v4l" / "by-id").mkdir(parents=True)
    (dev / "v4l" / "by-id" / "usb-cam").symlink_to("../../video2")
    (dev / "video-other").touch()
    first, second = list_cameras(dev, sys_class)
    assert (first.path, first.name, first.main, first.permitted) == (str(dev / "video2"), "USB Camera", True, True)
    assert first.stable_path == str(dev / "v4l" / "by-id" / "usb-cam")
    assert (second.name, second.main, second.stable_path) == ("Metadata", False, None)


def test_a_machine_without_cameras_has_an_empty_list(tmp_path: Path) -> None:
    assert list_cameras(tmp_path / "dev", tmp_path / "sys") == []
