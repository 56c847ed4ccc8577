"""``rtda-deploy run``: what it shows, writes and refuses."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from cli.commandline import arguments, assert_refused, environment, files_below, invoke
from runtime.models import tiny_spec, write_model
from runtime.streams import mjpeg_server

from rtda_runtime.sources.synthetic import bars

FAST = "test://bars?fps=0&frames=6&size=96x64"


@pytest.fixture(autouse=True)
def standing(here: Path) -> None:
    """In a folder with two small networks."""
    write_model(Path("a.onnx"))
    write_model(Path("b.onnx"), seed=1)


def frames_in(path: str) -> int:
    import cv2

    video = cv2.VideoCapture(path)
    count = 0
    while video.grab():
        count += 1
    return count


# What it tells


def test_progress_comes_as_time_goes_by_and_the_summary_last() -> None:
    camera = "test://bars?fps=50&frames=50&size=96x64"
    outcome = invoke("run", "a.onnx", "--camera", camera, "--json", "--report-every", "0.1")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    events = [line["event"] for line in lines]
    assert events[-1] == "summary" and set(events[:-1]) == {"progress"} and len(events) > 3
    frames = [line["frames"] for line in lines]
    assert frames == sorted(frames)
    assert {"fps", "dropped", "stages", "state", "losses", "sinks", "threads"} <= set(lines[0])


def test_the_camera_gets_its_secrets_and_nobody_else_does(here: Path) -> None:
    asked: List[Any] = []
    with mjpeg_server([bars(0, (96, 64))] * 3, asked=asked) as address:
        path = "/cam.mjpg?signature=s3cr3t-1&fps=5&%74oken=s3cr3t-2"
        camera = f"http://s3cr3t-4:s3cr3t-3@{address}{path}"
        words = ["--camera", camera, "--max-frames", "2", "--publish", "mcap:a.mcap"]
        outcomes = [invoke("--verbose", "run", "a.onnx", *words, *json_) for json_ in ([], ["--json"])]
    assert asked[0][0] == path
    assert outcomes[1].code == 0, outcomes[1]
    shown = f"http://***@{address}/cam.mjpg?signature=***&fps=5&%74oken=***"
    assert json.loads(outcomes[1].out.splitlines()[-1])["source"] == shown
    written = b"".join(path.read_bytes() for path in here.rglob("*") if path.is_file())
    assert "s3cr3t" not in f"{outcomes}" and b"s3cr3t" not in written
    assert shown.encode() in written


def test_the_summary_says_what_each_sink_did() -> None:
    outcome = invoke("run", "a.onnx", "--camera", FAST, "--save", "o.mp4", "--masks", "masks", "--json")
    told = outcome.json
    assert told["wrote"] == ["o.mp4", "masks"] and told["stopped"] is False and told["board"] is None
    for name in ("video", "masks"):
        sink = told["sinks"][name]
        assert (sink["written"], sink["dropped"], sink["error"]) == (6, 0, None)
        assert sink["stages"]["encode"]["count"] == 6
    assert told["threads"] == [], "everything has ended"
    shown = invoke("run", "a.onnx", "--camera", FAST, "--save", "o.mp4", "--masks", "masks").out
    assert re.search(r"^video +6 +0", shown, re.MULTILINE) and "6 frames in" in shown


def test_only_cameras_can_be_lost_and_have_an_age() -> None:
    often = ("--report-every", "0.001")
    live = invoke("run", "a.onnx", "--camera", "test://bars?fps=100&frames=5&size=96x64", *often)
    assert "camera lost 0 times" in live.out and "age at output" in live.out
    assert re.search(r"fps . age [\d.]+ ms", live.err)
    recorded = invoke("run", "a.onnx", "--camera", FAST, *often)
    assert "camera lost" not in recorded.out and "file to mask" in recorded.out
    assert "fps" in recorded.err and not re.search(r"\bage\b", recorded.out + recorded.err)


def test_frames_above_the_age_limit_are_counted() -> None:
    outcome = invoke("run", "a.onnx", "--camera", FAST, "--max-age-ms", "0.000001", "--masks", "masks", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["frames"], outcome.json["too_old"], outcome.json["wrote"]) == (0, 6, ["masks"])
    assert files_below(Path("masks")) == []


# A camera that breaks off


@pytest.fixture()
def breaking_camera() -> Iterator[str]:
    """Hangs up after 20 pictures, each time; who asks again gets them again."""
    with mjpeg_server([bars(number, (96, 64)) for number in range(20)]) as host:
        yield f"http://user:secret@{host}/stream"


def test_a_camera_that_comes_back_is_told_of_and_counted(breaking_camera: str) -> None:
    words = ["--camera", breaking_camera, "--policy", "every", "--max-frames", "30", "--save", "o.mp4"]
    outcome = invoke("run", "a.onnx", *words, "--json")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    told = [(line["state"], line["losses"] >= 1) for line in lines if line["event"] == "camera"]
    assert ("lost", True) in told and ("live", True) in told
    assert lines[-1]["frames"] == 30 and lines[-1]["losses"] >= 1 and frames_in("o.mp4") == 30
    assert "secret" not in outcome.out + outcome.err
    shown = invoke("run", "a.onnx", "--camera", breaking_camera, "--policy", "every", "--max-frames", "30")
    assert re.search(r"^camera +lost: ", shown.err, re.MULTILINE) and re.search(
        r"camera lost [1-9]\d* times", shown.out
    )
    assert "WARNING" not in shown.err, "told once"


def test_a_lost_camera_is_an_error_where_nobody_wants_it_back(breaking_camera: str) -> None:
    words = ["--camera", breaking_camera, "--policy", "every", "--no-reconnect", "--save", "o.mp4"]
    outcome = invoke("run", "a.onnx", *words)
    assert outcome.code == 3, outcome.err
    found = re.search(r"(\d+) frames in .* wrote o\.mp4", outcome.out)
    assert found and frames_in("o.mp4") == int(found.group(1)) > 0, "the film until then is whole"
    assert "secret" not in outcome.out + outcome.err


def test_a_recording_that_breaks_leaves_a_whole_film() -> None:
    import cv2

    Path("pictures").mkdir()
    for number in range(5):
        cv2.imwrite(f"pictures/{number}.png", bars(number, (96, 64)))
    Path("pictures/5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    outcome = invoke("run", "a.onnx", "--camera", "pictures", "--save", "o.mp4")
    assert outcome.code == 1 and "5.png" in outcome.said["error"]
    assert "5 frames in" in outcome.out and "wrote o.mp4" in outcome.out and frames_in("o.mp4") == 5


# Two networks


def test_two_networks_stand_side_by_side_in_the_video() -> None:
    import cv2

    outcome = invoke("run", "a.onnx", "--camera", FAST, "--compare", "b.onnx", "--save", "o.mp4", "--json")
    assert outcome.code == 0, outcome.err
    video = cv2.VideoCapture("o.mp4")
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (192, 64)
    assert frames_in("o.mp4") == 6
    assert outcome.json["stages"]["compare"]["count"] == 6
    assert re.search(r"^compare .*b\.onnx", outcome.err, re.MULTILINE)


def test_networks_of_other_classes_are_refused() -> None:
    write_model(Path("other.onnx"), tiny_spec(class_names=("a", "b", "c", "d", "e")))
    outcome = invoke("run", "a.onnx", "--camera", FAST, "--compare", "other.onnx", "--save", "o.mp4")
    assert outcome.code == 2 and "different classes" in outcome.said["error"]
    assert files_below(Path()) == ["a.onnx", "b.onnx", "other.onnx"]


# What makes no sense


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--save", "o.mp4", "--masks", "o.mp4"], "both write to o.mp4"),
        (["--save", "o.mp4", "--publish", "mcap:./x/../o.mp4"], "both write to"),
        (["--publish", "mcap:a.mcap", "--publish", "mcap:a.mcap"], "both write to a.mcap"),
        (["--publish", "foxglove", "--publish", "foxglove"], "given twice"),
        (["--report-every", "0"], "--report-every must be positive"),
        (["--max-age-ms", "-1"], "age must be positive"),
        (["--size", "wide"], "size 'wide' is not WIDTHxHEIGHT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_exits_2(words: List[str], error: str) -> None:
    assert_refused_after_notes(invoke("run", "a.onnx", "--camera", FAST, *words), 2, error)
    assert files_below(Path()) == ["a.onnx", "b.onnx"]


def assert_refused_after_notes(outcome: Any, code: int, error: str) -> None:
    """As ``assert_refused``; lines about the camera may stand before the error."""
    kept = [line for line in outcome.err.splitlines() if not line.startswith(("camera", "engine"))]
    assert_refused(outcome._replace(err="\n".join(kept) + "\n"), code, error)


def test_the_source_is_never_written_over() -> None:
    assert invoke("run", "a.onnx", "--camera", FAST, "--save", "o.mp4").code == 0
    before = Path("o.mp4").read_bytes()
    outcome = invoke("run", "a.onnx", "--camera", "o.mp4", "--save", "./o.mp4")
    assert_refused(outcome, 2, r"write over o\.mp4, which is the source", "another name")
    assert Path("o.mp4").read_bytes() == before


@pytest.mark.parametrize("camera", ["video:o.mp4", "o.mp4?every=1s", "o.mp4,a.mp4", "video:*.mp4", "."])
def test_a_film_is_not_written_over_the_footage_it_is_made_from(camera: str) -> None:
    assert invoke("run", "a.onnx", "--camera", FAST, "--save", "o.mp4").code == 0
    Path("a.mp4").write_bytes(Path("o.mp4").read_bytes())
    outcome = invoke("run", "a.onnx", "--camera", camera, "--save", "o.mp4")
    assert_refused(outcome, 2, r"write over o\.mp4, which is the source", "another name")


def test_a_part_of_a_recording_is_segmented_at_its_times() -> None:
    assert invoke("run", "a.onnx", "--camera", FAST, "--save", "o.mp4").code == 0
    for options, frames in (("", 6), ("?from=0.06s&speed=20", 4), ("?every=0.1s", 2)):
        outcome = invoke("run", "a.onnx", "--camera", f"video:o.mp4{options}", "--json")
        summary = json.loads(outcome.out.splitlines()[-1])
        assert (outcome.code, summary["frames"]) == (0, frames), outcome.err
        assert summary["source"].startswith("video:o.mp4")


def test_a_window_without_a_display_exits_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    outcome = invoke("run", "a.onnx", "--camera", FAST, "--show")
    assert_refused(outcome, 3, "no display", "--view auto")


def test_a_port_that_is_taken_exits_3_with_the_fix() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = invoke("run", "a.onnx", "--camera", FAST, "--view", f":{port}", "--save", "o.mp4")
    assert_refused_after_notes(outcome, 3, "port is taken")
    assert "--view auto" in outcome.said["fix"] and not Path("o.mp4").exists()


# Several frames in flight


def test_a_recording_with_several_frames_in_flight_gives_the_same_film_of_masks() -> None:
    import cv2

    for folder, words in (("one", []), ("two", ["--in-flight", "2"])):
        outcome = invoke("run", "a.onnx", "--camera", FAST, "--masks", folder, "--provider", "cpu", "--json", *words)
        assert outcome.code == 0, outcome.err
        assert outcome.json["frames"] == outcome.json["sinks"]["masks"]["written"] == 6
        assert (", 2 in flight" in outcome.err) == bool(words)
    assert files_below(Path("one")) == files_below(Path("two")) != []
    for name in files_below(Path("one")):
        assert (cv2.imread(f"one/{name}", -1) == cv2.imread(f"two/{name}", -1)).all()


def test_two_networks_may_have_several_frames_in_flight_too() -> None:
    words = ["--compare", "b.onnx", "--in-flight", "2", "--group", "drivable=road", "--json"]
    outcome = invoke("run", "a.onnx", "--camera", FAST, *words)
    assert outcome.code == 0, outcome.err
    assert outcome.json["stages"]["compare"]["count"] == 6 and set(outcome.json["shares"]) == {"drivable", "other"}
    assert outcome.err.count(", 2 in flight") == 2


@pytest.mark.parametrize(
    ("camera", "words"), [("test://bars?fps=30&size=96x64", []), (FAST, ["--policy", "newest"])], ids=["live", "newest"]
)
def test_several_frames_of_a_camera_in_flight_are_refused_before_the_model_is_opened(
    camera: str, words: List[str]
) -> None:
    Path("broken.onnx").write_bytes(b"no model")
    outcome = invoke("run", "broken.onnx", "--camera", camera, "--in-flight", "2", "--save", "o.mp4", *words)
    assert_refused(outcome, 2, "2 frames in flight would make each mask of a camera older", "--policy every")
    assert not Path("o.mp4").exists()


# When a sink fails


def test_a_sink_that_fails_stops_alone_and_the_run_exits_1() -> None:
    import cv2
    import numpy as np

    Path("mixed").mkdir()
    for index, size in enumerate([(40, 60), (40, 60), (64, 64), (40, 60)]):
        cv2.imwrite(f"mixed/{index}.png", np.zeros((*size, 3), np.uint8))
    outcome = invoke("run", "a.onnx", "--camera", "mixed", "--save", "o.mp4", "--masks", "masks", "--json")
    assert outcome.code == 1 and "64x64" in outcome.said["error"]
    told = json.loads(outcome.out)
    assert told["frames"] == 4 and told["sinks"]["masks"]["written"] == 4, "the loop went on"
    assert told["sinks"]["video"]["written"] == 2 and "64x64" in told["sinks"]["video"]["error"]
    assert told["wrote"] == ["o.mp4", "masks"] and frames_in("o.mp4") == 2, "what was filmed until then is whole"


def test_an_error_before_the_first_result_still_gives_the_json_summary() -> None:
    import cv2

    Path("pictures").mkdir()
    cv2.imwrite("pictures/0.png", bars(0, (96, 64)))
    Path("pictures/1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ("run", "a.onnx", "--camera", "pictures", "--max-age-ms", "0.000001")
    outcome = invoke(*words, "--json")
    assert outcome.code == 1 and "1.png" in outcome.said["error"]
    assert (outcome.json["event"], outcome.json["frames"], outcome.json["state"]) == ("summary", 0, "lost")
    assert_refused_after_notes(invoke(*words), 1, r"1\.png")


# Signals


def test_the_first_signal_stops_the_second_is_passed_over_the_third_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtda_deploy.cli.terminal import signals

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with signals.stops_in_order():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(signals.Terminated):
                signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(signals, "_PATIENCE_S", 0.0)
        with signals.stops_in_order():
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# A person at the terminal


class Terminal:
    """A command in a terminal of 120 columns, whose keyboard is ours."""

    def __init__(self, *words: str) -> None:
        leader, follower = pty.openpty()
        self._leader = leader
        self.seen = b""
        self.process = subprocess.Popen(
            [*arguments(), *words],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment(TERM="xterm-256color", COLUMNS="120"),
            preexec_fn=_take_the_terminal,
        )
        os.close(follower)
        os.set_blocking(leader, False)

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def wait_until(self, condition: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"no {what}: {self.text[-2000:]}"
            self._read()
            time.sleep(0.01)

    @property
    def text(self) -> str:
        return self.seen.decode(errors="replace")

    def end(self) -> int:
        self.wait_until(lambda: self.process.poll() is not None, "end")
        self._read()
        os.close(self._leader)
        return self.process.returncode

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nothing now, or the other end is closed
            self.seen += os.read(self._leader, 65536)


def _take_the_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_keys_save_a_picture_and_quit_in_order() -> None:
    terminal = Terminal("run", "a.onnx", "--camera", "test://bars?fps=60&size=96x64", "--save", "o.mp4")
    try:
        terminal.wait_until(lambda: bool(re.search(r"frame [1-9]", terminal.text)), "live line")
        terminal.type("s")
        terminal.wait_until(lambda: bool(list(Path().glob("snapshot-*.png"))), "snapshot")
        terminal.type("q")
        assert terminal.end() == 0, terminal.text
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
    assert re.search(r"saved +snapshot-\d{6}\.png", terminal.text)
    found = re.search(r"(\d+) frames in .* wrote o\.mp4", terminal.text)
    film = re.search(r"video \D*(\d+) \D*(\d+)", terminal.text)  # results written, and dropped by a busy machine
    assert found and film and sum(map(int, film.groups())) == int(found.group(1)), terminal.text
    assert frames_in("o.mp4") == int(film.group(1)) > 0
    assert "Traceback" not in terminal.text


# What the camera gives


def camera(asked: Optional[Dict[str, str]] = None, granted: Optional[Dict[str, str]] = None) -> str:
    from rtda_deploy.cli.run.screen import camera_text
    from rtda_runtime.sources import BarsSource

    source = BarsSource("cam", fps=30.0, size_wh=(640, 480))
    source.asked, source.granted = asked or {}, granted or {}
    return camera_text(source)


def test_the_first_line_says_what_was_granted_and_asked() -> None:
    assert camera() == "cam  640x480 @ 30"
    assert camera({"fps": "60"}, {"size": "1280x720", "fps": "25", "format": "MJPG"}) == (
        "cam  1280x720 @ 25 MJPG (asked @ 60)"
    )


# Classes, regions, confidence


def test_groups_are_what_the_summary_the_masks_and_the_recording_speak_of() -> None:
    import cv2

    outcome = invoke("run", "a.onnx", "--camera", FAST, "--group", "drivable=road", "--masks", "masks", "--json")
    shares = outcome.json["shares"]
    assert list(shares) == ["drivable", "other"] and sum(shares.values()) == pytest.approx(1, abs=1e-3)
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(Path("masks").iterdir())]
    assert len(masks) == 6 and all(mask.max() <= 1 for mask in masks)
    assert shares["drivable"] == pytest.approx(float((masks[-1] == 0).mean()), abs=1e-3)


def test_a_region_and_the_confidence_are_written_beside_the_masks() -> None:
    import cv2

    words = ("--region", "0,0.5,1,1", "--confidence", "--masks", "masks", "--json")
    outcome = invoke("run", "a.onnx", "--camera", FAST, *words)
    assert 0 < outcome.json["confidence"] <= 1
    assert len(list(Path("masks").glob("*.confidence.png"))) == 6
    mask = cv2.imread("masks/000000.png", cv2.IMREAD_UNCHANGED)
    assert (mask[: mask.shape[0] // 2] == 255).all() and (mask[mask.shape[0] // 2 :] < 5).all()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--group", "drivable=raod", "there is no class 'raod'"), ("--region", "0,0,640,480", "no part of a picture")],
)
def test_groups_and_regions_that_make_no_sense_are_usage_errors(option: str, value: str, words: str) -> None:
    assert_refused(invoke("run", "a.onnx", "--camera", FAST, option, value), 2, words)
