from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.models import tiny_spec
from runtime.publish_clients import result

from rtda_deploy.errors import ConfigError, FileAccessError, MissingPackageError, RtdaError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.kinds import function_named
from rtda_runtime.sinks.http import is_loopback
from rtda_runtime.sinks.kinds import SinkContext, sink_kind
from rtda_runtime.sinks.publish import Publisher, open_publisher
from rtda_runtime.sinks.publish.messages import Messages, wall_clock_offset_ns


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("rosbag:x", "--publish does not know 'rosbag:x'"),
        ("foxglove:8765", "--publish does not know"),
        ("", "--publish does not know"),
        ("mcap", "names no file"),
        ("mcap:", "names no file"),
        ("foxglove://127.0.0.1:99999", "no port between 0 and 65535"),
        ("foxglove://127.0.0.1:x", "no port between 0 and 65535"),
        ("foxglove://127.0.0.1:0/path", "more than a host and a port"),
        ("foxglove://me:secret@127.0.0.1:0", "more than a host and a port"),
        ("foxglove://me:secret", "no port between 0 and 65535"),
        ("foxglove://127.0.0.1:0/?token=secret", "unknown options: token"),
        ("https://secret@host", "--publish does not know"),
        ("zenoh://robot?token=secret", "unknown options: token"),
        ("foxglove://127.0.0.1:0?origin=example.org", "'example.org' is no web site"),
        ("zenoh://robot?scouting=on", "scouting=on: anyone on this network could watch"),
        ("zenoh://robot?listen=tcp/0.0.0.0:7447", "anyone on this network could watch"),
        ("zenoh://robot?listen=tcp/[::]:7447", "anyone on this network could watch"),
        ("zenoh://robot?listen=udp/robot.local:7447%23iface=eth0", "anyone on this network could watch"),
        ("zenoh://robot?listen=ws/127.0.0.1:7447", "any web site that is open in a browser here could look"),
        ("zenoh://robot?network=maybe", "network is 'maybe'"),
        ("zenoh://robot/*", "no Zenoh key"),
        ("zenoh://robot?mode=client", "unknown options: mode"),
        ("zenoh://robot?scouting=maybe", "scouting is 'maybe'"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_with_one_that_does(uri: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_publisher(uri, tiny_spec(), name="x")
    assert said in caught.value.message and caught.value.hint
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "::1", "localhost", "LOCALHOST.", "robot.localhost"])
def test_addresses_of_this_machine_alone_are_known(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and not is_loopback("robot.local")
    assert not any(is_loopback(name) for name in ("", "127.0.0.1.evil.example", "localhost.evil.example"))


@pytest.mark.parametrize(
    ("uri", "module"), [("foxglove://127.0.0.1:0", "foxglove"), ("zenoh", "zenoh"), ("mcap:x.mcap", "mcap")]
)
def test_a_missing_package_is_told_with_its_pip_line(
    uri: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {module, *(name for name in sys.modules if name.partition(".")[0] == module)}
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)  # how Python marks what cannot be imported
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPackageError, match=module) as caught:
        open_publisher(uri, tiny_spec(), name="x")
    if sys.version_info >= sink_kind("publish", uri).python:
        assert caught.value.hint == "pip install 'rtda-deploy[robotics]'"
    assert os.listdir(tmp_path) == []


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    program = (
        "import sys, rtda_runtime.sinks.publish; print(*(set(sys.modules) & {'foxglove', 'zenoh', 'mcap', 'cv2'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_stamps_are_wall_clock_and_keep_the_exact_distances() -> None:
    before = time.time_ns()
    messages = Messages(tiny_spec(), "x")
    now = messages.now_ns()
    assert before - 1_000_000_000 < now < time.time_ns() + 1_000_000_000
    stamps = [messages.stamp_ns(result(captured_ns=captured)) for captured in (5, 33_333_338)]
    assert stamps[1] - stamps[0] == 33_333_333
    assert Messages(tiny_spec(), "x", offset_ns=1000).stamp_ns(result(captured_ns=7)) == 1007
    assert abs(wall_clock_offset_ns() - (time.time_ns() - time.perf_counter_ns())) < 1_000_000_000


def test_statistics_are_shares_of_the_labelled_pixels_and_of_the_picture_without_a_class() -> None:
    values = Messages(tiny_spec(), "x", offset_ns=2_000_000_000).statistics(result(7, captured_ns=5))
    mask = result(7).mask
    assert values["timestamp"] == {"sec": 2, "nsec": 5} and values["captured_ns"] == 5
    assert values["sequence"] == 7 and values["dropped"] == 3 and values["state"] == "live"
    assert values["size_wh"] == [96, 64]
    assert values["timing_ms"] == {"preprocess": 1.25, "infer": 7.5, "age": 12.0}
    assert list(values["shares"]) == list(tiny_spec().class_names)
    assert values["shares"]["sky"] == pytest.approx((mask[mask < 5] == 2).mean(), abs=1e-6)
    assert values["unlabelled"] == pytest.approx(1 / 8)
    assert sum(values["shares"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("two", [False, True])
def test_overlays_are_drawn_into_the_same_memory_again(two: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = result(1)
    given = dataclasses.replace(given, compared=given.mask) if two else given
    encoded: List[Tuple[int, Any]] = []
    encode = cv2.imencode

    def spy(suffix: str, picture: np.ndarray, options: Any) -> Any:
        encoded.append((picture.ctypes.data, picture.shape))
        return encode(suffix, picture, options)

    messages = Messages(tiny_spec(), "x")
    monkeypatch.setattr(cv2, "imencode", spy)
    messages.overlay_jpeg(given)
    between = [np.empty(given.frame.nbytes * (2 if two else 1), np.uint8) for _ in range(3)]  # takes what was freed
    messages.overlay_jpeg(given)
    assert encoded[0] == encoded[1] and encoded[0][1] == (64, 192 if two else 96, 3) and between


def test_labels_say_what_the_values_mean() -> None:
    labels = Messages(tiny_spec(), "front").labels()
    assert labels["source"] == "front" and labels["ignore_index"] == 255
    assert labels["classes"][3] == {"index": 3, "name": "car", "color": [0, 0, 142]}


class Recorder(Publisher):
    """Keeps what a carrier would be given."""

    name = "recorder"
    address = "nowhere"

    def __init__(self, spec: ModelSpec, *wanted: str) -> None:
        super().__init__(spec, "front")
        self.wanted = wanted
        self.sent: List[Tuple[str, int]] = []
        self.states: List[Tuple[str, str]] = []
        self.ended = 0

    def _wanted(self, topic: str) -> bool:
        return topic in self.wanted

    def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Any) -> None:
        self.sent.append((topic, stamp_ns))

    def _send_json(self, topic: str, stamp_ns: int, values: Any) -> None:
        self.sent.append((topic, stamp_ns))

    def _send_state(self, stamp_ns: int, state: str, sentence: str) -> None:
        self.states.append((state, sentence))

    def _end(self) -> None:
        self.ended += 1


def test_what_nobody_wants_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: List[str] = []
    for name in ("mask_png", "overlay_jpeg", "statistics"):
        monkeypatch.setattr(Messages, name, lambda self, result, name=name: encoded.append(name) or b"")
    Recorder(tiny_spec()).write(result())
    assert encoded == []
    Recorder(tiny_spec(), "overlay").write(result())
    assert encoded == ["overlay_jpeg"]


def test_one_frame_has_one_stamp_on_every_topic() -> None:
    sink = Recorder(tiny_spec(), "mask", "overlay", "statistics")
    spent_ms = sink.write(result(captured_ns=123))
    stamps = {topic: stamp for topic, stamp in sink.sent if topic != "labels"}
    assert set(stamps) == {"mask", "overlay", "statistics"} and len(set(stamps.values())) == 1
    assert set(spent_ms) == {"publish"} and spent_ms["publish"] > 0


def test_labels_and_state_come_first_and_once() -> None:
    sink = Recorder(tiny_spec(), "mask")
    for number in range(3):
        sink.write(result(number))
    assert [topic for topic, _ in sink.sent] == ["labels", "mask", "mask", "mask"]
    assert sink.states == [("live", "the camera is live")]


def test_the_cameras_state_is_told_between_frames_and_once() -> None:
    sink = Recorder(tiny_spec(), "mask")
    sink.write(result(0))
    sink.on_state("lost", "test://: cable pulled")
    sink.on_state("live", "back after 3.1 s")
    sink.write(result(1))
    assert [state for state, _ in sink.states] == ["live", "lost", "live"]
    assert sink.states[1][1] == "test://: cable pulled"


def test_who_tells_of_a_change_never_waits_and_is_heard_all_the_same() -> None:
    """A sink that is busy sending, for as long as it likes, must not hold the camera's thread up."""
    busy, go_on, told = threading.Event(), threading.Event(), threading.Event()

    class Slow(Recorder):
        def _send_image(self, topic: str, stamp_ns: int, format_: str, content: bytes, result: Any) -> None:
            busy.set()
            assert go_on.wait(PATIENCE_S)

    sink = Slow(tiny_spec(), "mask")
    writer = threading.Thread(target=sink.write, args=(result(),))
    writer.start()
    assert busy.wait(PATIENCE_S)
    teller = threading.Thread(target=lambda: (sink.on_state("lost", "cable pulled"), told.set()))
    teller.start()
    assert told.wait(PATIENCE_S), "on_state waited for the sink"
    assert [state for state, _ in sink.states] == ["live"]
    go_on.set()
    writer.join(PATIENCE_S)
    assert [state for state, _ in sink.states] == ["live", "lost"]


def test_a_change_in_the_last_moment_of_a_write_is_told_after_it() -> None:
    class Late(Recorder):
        def _send_changes(self) -> None:
            super()._send_changes()
            if not self.told:
                self.told = True
                teller = threading.Thread(target=self.on_state, args=("lost", "cable pulled"))
                teller.start()
                teller.join(PATIENCE_S)  # it finds the lock taken

    sink = Late(tiny_spec(), "mask")
    sink.told = False
    sink.write(result())
    assert [state for state, _ in sink.states] == ["live", "lost"]


def test_a_change_before_the_first_frame_is_told_once() -> None:
    sink = Recorder(tiny_spec())
    sink._sends_at_once = False
    sink.on_state("stale", "late")
    sink.write(result())
    assert sink.states == [("stale", "late")]
    sink.on_state("lost", "gone")
    sink.close()
    assert sink.states == [("stale", "late"), ("lost", "gone")]


def test_after_its_end_a_publisher_says_so() -> None:
    sink = Recorder(tiny_spec())
    sink.close()
    sink.close()
    sink.on_state("lost", "too late")
    assert sink.ended == 1 and sink.states == []
    with pytest.raises(RtdaError, match="recorder nowhere is closed"):
        sink.write(result())


# --- MCAP ---


def _messages(path: Path) -> Iterator[Tuple[str, Any, int, dict[str, Any]]]:
    from mcap.reader import make_reader

    with path.open("rb") as stream:
        for schema, channel, message in make_reader(stream, validate_crcs=True).iter_messages():
            assert schema is not None and schema.encoding == "jsonschema" and channel.message_encoding == "json"
            assert json.loads(schema.data)["title"] == schema.name
            yield channel.topic, schema.name, message.log_time, json.loads(message.data)


def test_a_recording_gives_masks_back_bit_for_bit_with_their_stamps(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    given = [result(number, captured_ns=10_000_000_000 + number * 33_333_333) for number in range(20)]
    with open_publisher(f"mcap:{path}", tiny_spec(), name="front") as sink:
        for one in given:
            sink.write(one)
        sink.on_state("lost", "front: cable pulled")
    found = list(_messages(path))
    masks = [(log_ns, values) for topic, schema, log_ns, values in found if topic == "/rtda/mask"]
    assert len(masks) == 20
    offset_ns = masks[0][0] - given[0].captured_ns
    assert abs(offset_ns - wall_clock_offset_ns()) < 1_000_000_000
    for one, (log_ns, values) in zip(given, masks):
        assert log_ns == one.captured_ns + offset_ns
        assert values["timestamp"]["sec"] * 1_000_000_000 + values["timestamp"]["nsec"] == log_ns
        assert values["format"] == "png"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(values["data"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8 and np.array_equal(picture, one.mask)
    statistics = [values for topic, _, _, values in found if topic == "/rtda/statistics"]
    assert [values["captured_ns"] for values in statistics] == [one.captured_ns for one in given]
    overlays = [values for topic, schema, _, values in found if topic == "/rtda/overlay"]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(overlays[0]["data"]), np.uint8), 1).shape == (64, 96, 3)
    assert {schema for topic, schema, _, _ in found if topic in ("/rtda/mask", "/rtda/overlay")} == {
        "foxglove.CompressedImage"
    }
    labels = [values for topic, _, _, values in found if topic == "/rtda/labels"]
    assert [one["name"] for one in labels[0]["classes"]] == list(tiny_spec().class_names)
    states = [(schema, values["level"], values["message"]) for topic, schema, _, values in found if "state" in topic]
    assert states == [
        ("foxglove.Log", 2, "live: the camera is live"),
        ("foxglove.Log", 4, "lost: front: cable pulled"),
    ]
    assert os.listdir(tmp_path) == ["drive.mcap"]


def test_the_recipe_of_the_docs_reads_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "publish.md").read_text(encoding="utf-8")
    (recipe,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "make_reader" in block]
    monkeypatch.chdir(tmp_path)
    with open_publisher("mcap:drive.mcap", tiny_spec(), name="front") as sink:
        sink.write(result())
    found: dict[str, Any] = {}
    exec(recipe, found)
    assert np.array_equal(cv2.imdecode(np.frombuffer(found["png"], np.uint8), cv2.IMREAD_UNCHANGED), result().mask)


def test_a_recording_carries_the_whole_spec(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    path = tmp_path / "drive.mcap"
    with open_publisher(f"mcap:{path}", tiny_spec(), name="front") as sink:
        sink.write(result())
    with path.open("rb") as stream:
        (metadata,) = make_reader(stream).iter_metadata()
    assert metadata.name == "rtda.spec" and ModelSpec.from_json(metadata.metadata["spec"]) == tiny_spec()


def test_a_recording_holds_no_secret_of_the_name_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    with open_publisher(f"mcap:{path}", tiny_spec(), name="rtsp://me:secret@host/1") as sink:
        sink.on_state("live", "it runs")
        sink.write(result())
    content = path.read_bytes()
    assert b"secret" not in content and b"rtsp://***@host/1" in content


def test_every_message_fits_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    with open_publisher(f"mcap:{path}", tiny_spec(), name="front") as sink:
        sink.write(result())
    from rtda_runtime.sinks.publish.messages import SCHEMAS

    topics = set()
    for topic, schema, _, values in _messages(path):
        topics.add(topic)
        assert set(values) == set(SCHEMAS[schema]["required"]) == set(SCHEMAS[schema]["properties"])
    assert topics == {f"/rtda/{topic}" for topic in ("mask", "overlay", "statistics", "labels", "state")}


def test_the_recording_gets_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    path.write_bytes(b"the drive before")
    sink = open_publisher(f"mcap:{path}", tiny_spec(), name="x")
    sink.write(result())
    assert path.read_bytes() == b"the drive before"
    assert [name for name in os.listdir(tmp_path) if ".part" in name]
    sink.close()
    sink.close()
    assert len(list(_messages(path))) == 5 and os.listdir(tmp_path) == ["drive.mcap"]


def test_no_frame_is_no_recording(tmp_path: Path, caplog: Any) -> None:
    open_publisher(f"mcap:{tmp_path / 'drive.mcap'}", tiny_spec(), name="x").close()
    assert os.listdir(tmp_path) == [] and "no frame" in caplog.text


def test_a_recording_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileAccessError, match=r"drive\.mcap"):
        open_publisher(f"mcap:{tmp_path / 'file' / 'drive.mcap'}", tiny_spec(), name="x")
    with pytest.raises(FileAccessError, match="directory"):
        open_publisher(f"mcap:{tmp_path}", tiny_spec(), name="x")


@pytest.mark.parametrize("frames", [3, 300])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, frames: int) -> None:
    program = """
import resource, sys
sys.path.insert(0, sys.argv[3])
from runtime.publish_clients import result, tiny_spec
from rtda_deploy.errors import FileAccessError
from rtda_runtime.sinks.publish import open_publisher
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the file may not grow any further, as on a full disk
sink = open_publisher("mcap:" + sys.argv[1], tiny_spec(), name="x")
try:
    for number in range(int(sys.argv[2])):
        sink.write(result(number))
    sink.close()
except FileAccessError as err:
    print(err)
sink.on_state("lost", "after the end")
sink.close()
"""
    tests = str(Path(__file__).parent.parent.parent)
    command = [sys.executable, "-c", program, str(tmp_path / "drive.mcap"), str(frames), tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "drive.mcap: File too large" in done.stdout and done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_a_pipeline_waits_for_a_recording() -> None:
    from rtda_runtime.sinks.publish.foxglove import FoxgloveSink
    from rtda_runtime.sinks.publish.mcap import McapSink
    from rtda_runtime.sinks.publish.zenoh import ZenohSink

    assert McapSink.keeps and not FoxgloveSink.keeps and not ZenohSink.keeps
    assert (McapSink.name, FoxgloveSink.name, ZenohSink.name) == ("mcap", "foxglove", "zenoh")


def settings(uri: str) -> Dict[str, Any]:
    """What the sink behind an address would be opened with; nothing is opened."""
    opener = function_named(sink_kind("publish", uri).opener)(uri, SinkContext(tiny_spec(), source="x"))
    return dict(opener.keywords)


def test_addresses_of_foxglove_are_what_they_say() -> None:
    web_sites = "origin=https://a.example&origin=https://b:81"
    for uri, host, port, origins in (
        ("foxglove", "127.0.0.1", 8765, []),
        ("foxglove://[::1]:9000", "::1", 9000, []),
        (f"foxglove://0.0.0.0?{web_sites}", "0.0.0.0", 8765, ["https://a.example", "https://b:81"]),
    ):
        assert settings(uri) == {"name": "x", "host": host, "port": port, "origins": origins}


@pytest.mark.parametrize(
    ("uri", "listen", "scouting"),
    [
        ("zenoh://a?connect=tcp/10.0.0.2:7447", ["tcp/127.0.0.1:0"], False),
        ("zenoh://a?listen=tcp/[::1]:7000", ["tcp/[::1]:7000"], False),
        ("zenoh://a?listen=unixsock-stream//run/a.sock", ["unixsock-stream//run/a.sock"], False),
        ("zenoh://a?network=on", [], True),
        ("zenoh://a?network=on&scouting=off&listen=tcp/0.0.0.0:7447", ["tcp/0.0.0.0:7447"], False),
        ("zenoh://a?config=a.json5", [], False),
    ],
)
def test_zenoh_stays_on_this_machine_unless_the_network_was_named(uri: str, listen: List[str], scouting: bool) -> None:
    found = settings(uri)
    assert (found["listen"], found["scouting"]) == (listen, scouting)


def test_zenoh_takes_a_port_here_that_nobody_listens_on() -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # it is taken already
            taken.bind(("127.0.0.1", 7447))
        (endpoint,) = settings("zenoh")["listen"]
    assert re.fullmatch(r"tcp/127\.0\.0\.1:7(44[89]|4[5-9]\d|5[0-4]\d)", endpoint)
