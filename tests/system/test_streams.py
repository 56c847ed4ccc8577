"""Network cameras against real servers: RTSP with GStreamer's, motion JPEG over HTTP."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from cli.commandline import run_command
from system import timecode
from system.camera_servers import CameraServer, rtsp_is_missing

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime import Pipeline, open_source
from rtda_runtime.sources import RefusedError
from rtda_runtime.sources.stream import open_stream

pytestmark = pytest.mark.system

USER, WRONG = "user:secret", "user:wr0ng"
_LONG_S = 60.0


@pytest.fixture(scope="module", params=["rtsp", "mjpeg"])
def camera(request: Any) -> Iterator[CameraServer]:
    """A camera behind a password."""
    if request.param == "rtsp" and rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    with CameraServer(request.param, "--password", "secret") as server:
        yield server


@pytest.fixture(scope="module")
def rtsp() -> Iterator[CameraServer]:
    """RTSP cameras without a password."""
    if rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    with CameraServer("rtsp") as server:
        yield server


@pytest.fixture(scope="module")
def http() -> Iterator[CameraServer]:
    """HTTP cameras without a password."""
    with CameraServer("mjpeg") as server:
        yield server


def _path(server: CameraServer) -> str:
    return "/x" if server.url("").startswith("rtsp") else "/cam"


def _said(err: BaseException) -> str:
    """Everything a program could print of an error."""
    shown = ""
    seen: List[BaseException] = []
    while err not in seen:
        seen.append(err)
        shown += f"{err!r} {err} {getattr(err, 'why', '')} {getattr(err, 'hint', '')} {vars(err)}"
        err = err.__cause__ or err.__context__ or err
    return shown


def test_frames_come_with_size_state_and_clock(camera: CameraServer) -> None:
    before_ns = time.perf_counter_ns()
    with open_source(camera.url(_path(camera), USER)) as source:
        frames = [source.read(5.0) for _ in range(10)]
    assert source.live and source.clock == "monotonic" and source.stamp == "arrival" and source.state == "live"
    assert source.size_wh == (frames[0].image.shape[1], frames[0].image.shape[0])  # type: ignore[union-attr]
    sequences = [frame.sequence for frame in frames if frame]
    assert sequences == sorted(set(sequences)) and sequences[-1] == 9 + source.outdated + source.damaged
    stamps = [before_ns, *(frame.captured_ns for frame in frames if frame), time.perf_counter_ns()]
    assert stamps == sorted(stamps)
    assert all(frame.image.std() > 20 for frame in frames if frame), "pictures, not grey or black"


@pytest.mark.parametrize(("user", "says"), [(WRONG, "refused this user name and password"), ("", "asks for a user")])
def test_a_wrong_password_is_final_and_in_no_text(camera: CameraServer, user: str, says: str, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(RefusedError, match=says) as caught:
        open_source(camera.url(_path(camera), user), reconnect=True)
    assert "401" in str(caught.value) and caught.value.exit_code == 3
    assert "wr0ng" not in _said(caught.value) + caplog.text


def test_a_path_that_does_not_exist_is_told(camera: CameraServer) -> None:
    with pytest.raises(CameraError, match=r"nothing at this path \(404\)") as caught:
        open_source(camera.url("/nothing", USER))
    assert "secret" not in _said(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    ("host", "says"), [("127.0.0.1:9", "nobody listens"), ("no-such-host.invalid", "nobody knows that host name")]
)
def test_a_host_that_is_down_or_unknown_is_told(scheme: str, host: str, says: str) -> None:
    with pytest.raises(CameraError, match=says) as caught:
        open_source(f"{scheme}://{USER}@{host}/x?password=secret")
    assert "secret" not in _said(caught.value) and not isinstance(caught.value, RefusedError)


def test_a_codec_nobody_knows_is_final(rtsp: CameraServer) -> None:
    with pytest.raises(RefusedError, match="codec that FFmpeg does not know"):
        open_source(rtsp.url("/odd"))


def test_a_stream_without_pictures_is_final(rtsp: CameraServer) -> None:
    with pytest.raises(RefusedError, match="sends no video that FFmpeg knows, but audio"):
        open_source(rtsp.url("/sound"))


@pytest.mark.parametrize(
    ("path", "says"), [("/page", "nothing that can be read as video"), ("/busy", "answered with an error")]
)
def test_what_is_no_camera_is_told(http: CameraServer, path: str, says: str) -> None:
    with pytest.raises(CameraError, match=says):
        open_source(http.url(path))


def test_motion_jpeg_over_rtsp_works(rtsp: CameraServer) -> None:
    with open_source(rtsp.url("/jpeg")) as source:
        frame = source.read(5.0)
    assert frame is not None and frame.image.shape == (96, 160, 3)


@pytest.mark.parametrize(
    ("server", "before", "after"), [("rtsp", (96, 160, 3), (192, 320, 3)), ("http", (48, 64, 3), (64, 96, 3))]
)
def test_a_stream_that_changes_size_goes_on(server: str, before: Any, after: Any, request: Any, caplog: Any) -> None:
    url = request.getfixturevalue(server).url("/sizes")
    shapes: List[Any] = []
    with caplog.at_level(logging.INFO), open_source(url, reconnect=True) as source:
        deadline = time.monotonic() + _LONG_S
        while (not shapes or shapes[-1] != after) and time.monotonic() < deadline:
            frame = source.read(5.0)
            assert frame is not None
            shapes.append(frame.image.shape)
    assert set(shapes) <= {before, after} and shapes[-1] == after
    assert source.losses == 0
    assert "now gives" in caplog.text


@pytest.mark.parametrize("server", ["rtsp", "http"])
def test_who_joins_late_gets_whole_pictures_from_now_on(server: str, request: Any) -> None:
    url = request.getfixturevalue(server).url("/clock")
    with open_source(url) as first:
        first.read(5.0)
        joined = timecode.now()
        with open_source(url) as second:
            drawn = [timecode.read(second.read(5.0).image) for _ in range(20)]  # type: ignore[union-attr]
    assert None not in drawn, "each picture can be read"
    assert drawn[0] >= joined  # type: ignore[operator]
    assert drawn == sorted(set(drawn)), "each is newer than the one before"


@pytest.mark.parametrize("kind", ["rtsp", "mjpeg"])
def test_a_camera_that_is_restarted_comes_back_and_leaves_nothing_behind(kind: str, caplog: Any) -> None:
    if kind == "rtsp" and rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    told: List[Any] = []
    with CameraServer(kind, "--password", "secret") as server, caplog.at_level(logging.DEBUG):
        source = open_source(server.url(_path(server), USER), reconnect=True)
        source.on_state = lambda state, sentence: told.append((state, sentence))
        sequences, counts = [], []
        for _ in range(3):
            sequences += [source.read(5.0).sequence for _ in range(5)]  # type: ignore[union-attr]
            counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
            losses = source.losses
            server.kill()
            server.start()
            while source.losses == losses:
                sequences.append(source.read(5.0).sequence)  # type: ignore[union-attr]
        source.close()
    assert sequences == sorted(set(sequences))
    assert counts[1] == counts[2], "threads and file handles as before"
    assert [state for state, _ in told][:4] == ["lost", "live", "lost", "live"]
    assert "secret" not in caplog.text + repr(told)
    assert "first good frame" in caplog.text


def test_a_reader_of_a_server_that_is_gone_is_let_go() -> None:
    raised: List[Exception] = []
    with CameraServer("mjpeg") as server:
        source = open_source(server.url("/cam"), reconnect=True)
        source.read(5.0)
        server.kill()

        def read() -> None:
            try:
                while True:
                    source.read(5.0)
            except SourceError as err:
                raised.append(err)

        reader = threading.Thread(target=read)
        reader.start()
        deadline = time.monotonic() + _LONG_S
        while source.state != "lost" and time.monotonic() < deadline:
            time.sleep(0.01)
        source.close()
        reader.join(_LONG_S)
    assert not reader.is_alive() and "is closed" in str(raised[0])


def test_a_server_that_stops_sending_is_given_up() -> None:
    with CameraServer("mjpeg") as server, open_stream(server.url("/cam"), read_timeout_s=0.5) as source:
        server.freeze()
        with pytest.raises(CameraError, match="gave no frame for"):
            for _ in range(100_000):
                source.read(0.5)


def test_the_pipeline_goes_on_when_its_camera_is_restarted(tiny_onnx: Path) -> None:
    with CameraServer("mjpeg") as server, Pipeline.open(tiny_onnx, server.url("/cam"), provider="cpu") as pipeline:
        results = iter(pipeline)
        first = next(results)
        server.kill()
        server.start()
        while pipeline.stats["losses"] == 0:
            next(results)
        after = next(results)
    assert after.sequence > first.sequence
    assert pipeline.stats["losses"] == 1


_READER = """
import json, sys, time
from rtda_runtime import open_source
from system import timecode
with open_source(sys.argv[1], reconnect=True) as source:
    while True:
        frame = source.read(30.0)
        told_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
        said = {"age_ms": timecode.age_ms(frame.image), "told_ms": told_ms, "outdated": source.outdated}
        print(json.dumps({**said, "losses": source.losses, "sequence": frame.sequence}), flush=True)
"""


@pytest.mark.parametrize("kind", ["rtsp", "mjpeg"])
def test_after_a_stall_of_the_reader_no_frame_of_the_stall_is_given(kind: str) -> None:
    """The process stands still for four seconds, and a hundred frames wait in its socket."""
    if kind == "rtsp" and rtsp_is_missing():
        pytest.skip(rtsp_is_missing())
    tests = Path(__file__).parents[1]
    search = os.pathsep.join([str(tests), str(tests.parent), str(tests.parent / "runtime")])
    with CameraServer(kind) as server:
        reader = subprocess.Popen(
            [sys.executable, "-c", _READER, server.url("/clock")],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search},
        )  # fmt: skip
        try:
            assert reader.stdout is not None
            before = [json.loads(reader.stdout.readline()) for _ in range(50)]
            reader.send_signal(signal.SIGSTOP)
            time.sleep(4.0)
            reader.send_signal(signal.SIGCONT)
            after = [json.loads(reader.stdout.readline()) for _ in range(50)]
        finally:
            reader.kill()
            reader.communicate()
    assert after[-1]["losses"] == 0
    assert after[-1]["outdated"] - before[-1]["outdated"] >= 60
    hidden_ms = [frame["age_ms"] - frame["told_ms"] for frame in before[5:] + after[5:]]
    assert max(hidden_ms) < 1000, "no frame of the stall is given as new"
    assert after[-1]["sequence"] - before[-1]["sequence"] >= 50 + 60, "what was left out leaves a gap"


# By the command line


def test_a_camera_behind_a_password_runs(camera: CameraServer, tiny_onnx: Path, tmp_path: Path) -> None:
    address = camera.url(f"{_path(camera)}?token=hidden" if _path(camera) == "/cam" else "/x", USER)
    outcome = run_command("run", tiny_onnx, "--camera", address, "--max-frames", "10", "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out.splitlines()[-1])
    assert (summary["frames"], summary["policy"]) == (10, "newest")
    assert "://***@127.0.0.1" in summary["source"]
    assert "secret" not in outcome.out + outcome.err and "hidden" not in outcome.out + outcome.err


def test_a_wrong_password_exits_3_and_is_not_shown(camera: CameraServer, tiny_onnx: Path) -> None:
    outcome = run_command("--verbose", "run", tiny_onnx, "--camera", camera.url(_path(camera), WRONG))
    assert outcome.code == 3, outcome.err
    assert "wr0ng" not in outcome.out + outcome.err
    assert outcome.said["error"] and outcome.said["fix"] and "Traceback" not in outcome.err
