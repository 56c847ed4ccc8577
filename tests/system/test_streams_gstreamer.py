"""GStreamer pipelines through PyGObject, with real GStreamer elements.

The bindings belong to the system's Python. Where the one that runs the tests does not have them, one test starts this
file again under the system's, with what it needs of ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, List

import pytest
from runtime.source_contract import SECRET, OpenSource, SourceContract
from system.camera_servers import SYSTEM_PYTHON, CameraServer, rtsp_is_missing

from rtda_deploy.errors import CameraError, ConfigError, DeviceError, SourceError
from rtda_deploy.optional import available
from rtda_runtime.sources import ReconnectingSource, RefusedError, open_source

_INSIDE = "RTDA_SYSTEM_PYTHON"  # set in the process that this file starts
_ROOT = Path(__file__).parents[2]
_LONG_S = 60.0

pytestmark = pytest.mark.system
needs_bindings = pytest.mark.skipif(
    not available("gi"), reason="this Python has no GStreamer bindings; see the last test"
)

_SMALL = "video/x-raw,width=64,height=48,framerate=100/1"


@needs_bindings
class TestPipelineThatEnds(SourceContract):
    @pytest.fixture()
    def open_short(self) -> OpenSource:
        return lambda: open_source(f"gst:videotestsrc num-buffers=5 ! {_SMALL} ! videoconvert ! appsink")


@needs_bindings
class TestLivePipeline(SourceContract):
    live = True
    ends = False

    @pytest.fixture()
    def open_short(self) -> OpenSource:
        secret = f"videotestsrc name=rtsp://user:{SECRET}@host num-buffers=5 is-live=true"
        return lambda: open_source(f"gst:{secret} ! {_SMALL} ! videoconvert ! appsink")

    def test_it_says_what_it_gives_and_when_it_was_made(self, open_short: OpenSource) -> None:
        with open_short() as source:
            assert source.granted == {"size": "64x48", "fps": "100"}
            assert (source.fps, source.stamp) == (100.0, "pipeline")

    def test_frames_that_piled_up_while_nobody_read_are_left_out(self) -> None:
        with open_source(f"gst:videotestsrc is-live=true ! {_SMALL} ! videoconvert ! appsink") as source:
            before = [source.read(5.0) for _ in range(5)][-1]
            time.sleep(1.5)
            after = source.read(5.0)
            age_ns = time.perf_counter_ns() - after.captured_ns  # type: ignore[union-attr]
        assert source.outdated >= 50 and age_ns < 1_000_000_000
        assert after.sequence == before.sequence + 1 + source.outdated  # type: ignore[union-attr]

    def test_frames_are_stamped_when_they_were_made_not_when_they_were_read(self, open_short: OpenSource) -> None:
        with open_short() as source:
            stamps = [frame.captured_ns for frame in self.read_all(source)]
        steps_ms = [(after - before) / 1e6 for before, after in zip(stamps, stamps[1:])]
        assert steps_ms == [pytest.approx(10, abs=0.01)] * 4


@needs_bindings
@pytest.mark.parametrize("pixels", ["BGR", "BGRx", "BGRA", "GRAY8"])
def test_every_format_becomes_bgr_whatever_its_row_padding(pixels: str) -> None:
    caps = f"video/x-raw,format={pixels},width=65,height=48"
    with open_source(f"gst:videotestsrc pattern=red num-buffers=1 ! videoconvert ! {caps} ! appsink") as source:
        image = source.read().image  # type: ignore[union-attr]
    assert image.shape == (48, 65, 3)
    assert (image == image[0, 0]).all(), "no row is shifted"
    blue, green, red = (int(value) for value in image[0, 0])
    assert (blue == green == red) if pixels == "GRAY8" else (red > 200 and blue < 60 and green < 60)


@needs_bindings
@pytest.mark.parametrize(
    ("pipeline", "kind", "says"),
    [
        ("videotestsrc ! nosuchelement ! appsink", DeviceError, 'no element "nosuchelement"'),
        ("videotestsrc ! fakesink", ConfigError, "0 appsinks"),
        ("videotestsrc", ConfigError, "0 appsinks"),
        ("videotestsrc ! appsink videotestsrc ! appsink", ConfigError, "2 appsinks"),
        ("videotestsrc ! ! appsink", ConfigError, "no pipeline"),
        ("filesrc location=/nonexistent ! appsink", CameraError, "not found"),
        ("videotestsrc ! video/x-raw,format=I420 ! appsink", CameraError, "stopped"),
    ],
)
def test_pipelines_that_cannot_run_say_why(pipeline: str, kind: Any, says: str) -> None:
    with pytest.raises(kind, match=says):
        open_source(f"gst:{pipeline}")


@needs_bindings
def test_csi_needs_a_jetson() -> None:
    with pytest.raises(DeviceError, match="nvarguscamerasrc"):
        open_source("csi://0", size_wh=(1280, 720), fps=30)


@needs_bindings
def test_a_reader_that_waits_is_let_go() -> None:
    raised: List[Exception] = []
    source = open_source("gst:videotestsrc is-live=true ! video/x-raw,framerate=1/30 ! videoconvert ! appsink")
    source.read()

    def read() -> None:
        try:
            source.read(_LONG_S)
        except SourceError as err:
            raised.append(err)

    reader = threading.Thread(target=read)
    reader.start()
    source.interrupt()
    reader.join(_LONG_S / 2)
    source.close()
    assert not reader.is_alive() and "is closed" in str(raised[0])


@needs_bindings
def test_a_read_lets_other_threads_run() -> None:
    with open_source("gst:videotestsrc is-live=true ! video/x-raw,framerate=1/1 ! videoconvert ! appsink") as source:
        source.read()
        reader = threading.Thread(target=source.read, args=(_LONG_S,))
        reader.start()
        steps = 0
        while reader.is_alive():
            steps += 1
            time.sleep(0.001)
        assert steps > 20


@needs_bindings
def test_a_lost_pipeline_is_started_again_and_its_threads_are_gone() -> None:
    pipeline = f"videotestsrc num-buffers=5 is-live=true ! {_SMALL} ! videoconvert ! appsink"
    with open_source(f"gst:{pipeline}", reconnect=True) as source:
        assert isinstance(source, ReconnectingSource)
        counts = []
        while source.losses < 3:
            losses = source.losses
            source.read()
            if source.losses != losses:
                counts.append(len(os.listdir("/proc/self/task")))
    assert max(counts) - min(counts) <= 2, "a pipeline's own threads come and go"
    assert len(os.listdir("/proc/self/task")) <= min(counts)


@needs_bindings
@pytest.mark.parametrize(("password", "refused"), [("secret", False), (SECRET, True)])
def test_rtsp_with_a_password_in_a_pipeline(password: str, refused: bool) -> None:
    if rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    with CameraServer("rtsp", "--password", "secret") as server:
        address = server.url("/jpeg", f"user:{password}")
        uri = (
            f"gst:rtspsrc location={address} latency=0 protocols=tcp ! rtpjpegdepay ! jpegdec ! videoconvert ! appsink"
        )
        if refused:
            with pytest.raises(RefusedError) as caught:
                open_source(uri)
            assert SECRET not in f"{caught.value} {caught.value.why} {caught.value.hint}"
        else:
            with open_source(uri) as source:
                assert source.live and source.read().image.shape == (96, 160, 3)  # type: ignore[union-attr]


@pytest.mark.skipif(_INSIDE in os.environ or available("gi"), reason="the tests above ran here")
def test_all_of_this_under_the_systems_python() -> None:
    """Its packages and ours, side by side, as ``--system-site-packages`` gives them."""
    version = "import sys; print(sys.version_info[:2]); import gi; gi.require_version('Gst', '1.0')"
    try:
        found = subprocess.run([SYSTEM_PYTHON, "-c", version], capture_output=True, text=True)
    except OSError:
        pytest.skip(f"no {SYSTEM_PYTHON}")
    if found.returncode != 0:
        pytest.skip("GStreamer's Python bindings are not installed: apt-get install the packages of .ci/packages.txt")
    if found.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"{SYSTEM_PYTHON} is {found.stdout.strip()}: NumPy and OpenCV here are for {sys.version_info[:2]}")
    ours = [_ROOT, _ROOT / "runtime", *(path for path in sys.path if path.endswith("site-packages"))]
    options = ["-p", "no:cacheprovider", "-m", "system"]
    options += ["-W", "ignore:DynamicImporter:ImportWarning"]  # PyGObject's own
    done = subprocess.run(
        [SYSTEM_PYTHON, "-m", "pytest", *options, str(Path(__file__))],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, _INSIDE: "1", "PYTHONPATH": os.pathsep.join(map(str, ours)), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
