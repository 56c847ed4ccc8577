"""What their own libraries wrote into bags comes out of them: the very pictures, with their times and stamps."""

from __future__ import annotations

import importlib.util
import sqlite3 as database
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from runtime.sources.bags import (
    FOX_RAW,
    IMAGE,
    LAG_NS,
    PERIOD_NS,
    SIZE_WH,
    START_NS,
    Logged,
    by_hand,
    drive,
    laid_out,
    log_times,
    picture,
    schema_name,
    serialised,
    write_mcap,
    write_ros1,
    write_ros2,
)
from runtime.sources.test_image_messages import chart, middles, mosaicked, packed

from rtda_runtime.sources.footage import RecordedFrame, Recording, open_footage
from rtda_runtime.sources.footage.base import numbers_every

cv2: Any = pytest.importorskip("cv2")

COUNT = 7
Writer = Callable[[Path, List[Logged]], Path]


def ros1(path: Path, messages: List[Logged], **options: Any) -> Path:
    return write_ros1(path / "run.bag", {"/front": messages}, **options)


def sqlite3(path: Path, messages: List[Logged], **options: Any) -> Path:
    return write_ros2(path / "run", {"/front": messages}, "sqlite3", **options)


def ros2_mcap(path: Path, messages: List[Logged], **options: Any) -> Path:
    return write_ros2(path / "run", {"/front": messages}, "mcap", **options)


def mcap(path: Path, messages: List[Logged], wire: str = "cdr", **options: Any) -> Path:
    return write_mcap(path / "run.mcap", {"/front": messages}, wire, **options)


ROS: Dict[str, Writer] = {
    "ros1": ros1,
    "ros1 bz2": lambda path, messages: ros1(path, messages, compression="bz2"),
    "ros1 lz4": lambda path, messages: ros1(path, messages, compression="lz4", chunk=5000),
    "ros2 sqlite3": sqlite3,
    "ros2 sqlite3, file packed": lambda path, messages: sqlite3(path, messages, compression="file"),
    "ros2 sqlite3, messages packed": lambda path, messages: sqlite3(path, messages, compression="message"),
    "ros2 mcap": ros2_mcap,
    "ros2 mcap, file packed": lambda path, messages: ros2_mcap(path, messages, compression="file"),
    "ros2 mcap, messages packed": lambda path, messages: ros2_mcap(path, messages, compression="message"),
    "ros2 mcap, chunks packed": lambda path, messages: ros2_mcap(path, messages, compression="storage"),
    "mcap cdr": mcap,
    "mcap cdr, small chunks": lambda path, messages: mcap(path, messages, chunk_size=5000),
    "mcap cdr, no chunks": lambda path, messages: mcap(path, messages, use_chunking=False),
    "mcap ros1": lambda path, messages: mcap(path, messages, "ros1"),
}
FOXGLOVE: Dict[str, Writer] = {
    "mcap json": lambda path, messages: mcap(path, messages, "json"),
    "mcap protobuf": lambda path, messages: mcap(path, messages, "protobuf"),
}


def opened(path: Path, topic: str = "") -> Recording:
    (recording,) = open_footage(f"bag:{path}" + (f"?topic={topic}" if topic else ""))
    return recording


def read(recording: Recording) -> List[RecordedFrame]:
    return list(recording.frames(range(recording.num_frames)))


def check_times(recording: Recording, frames: List[RecordedFrame]) -> None:
    assert recording.times_ns.tolist() == [number * PERIOD_NS for number in range(COUNT)]
    assert recording.times_ns.dtype == np.int64
    assert [frame.number for frame in frames] == list(range(COUNT))
    assert [frame.time_ns for frame in frames] == recording.times_ns.tolist()
    assert [frame.stamp_ns for frame in frames] == [time - LAG_NS for time in log_times(COUNT)]
    assert recording.notes == [] and recording.damaged == 0
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous and frame.image.flags.writeable


@pytest.mark.skipif(importlib.util.find_spec("rosbags") is None, reason="needs rosbags")
@pytest.mark.parametrize("wire", ["ros1", "cdr"])
@pytest.mark.parametrize("content", ["rgb8", "jpeg", "fox-rgb8", "fox-png", "h264"])
def test_what_old_pythons_write_by_hand_is_what_rosbags_writes(content: str, wire: str) -> None:
    for message in drive(3, content):
        assert by_hand(message, wire) == serialised(message, wire)


@pytest.mark.parametrize("content", ["rgb8", "bgr8"])
@pytest.mark.parametrize("writer", ROS)
def test_raw_pictures_of_every_kind_of_bag_are_the_ones_that_were_written(
    tmp_path: Path, writer: str, content: str
) -> None:
    recording = opened(ROS[writer](tmp_path, drive(COUNT, content)))
    assert (recording.kind, recording.topic, recording.size_wh) == ("bag", "/front", SIZE_WH)
    assert recording.keys.all() and recording.num_frames == COUNT
    frames = read(recording)
    check_times(recording, frames)
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)


@pytest.mark.parametrize("writer", {**ROS, **FOXGLOVE})
def test_raw_pictures_in_foxgloves_type_are_the_ones_that_were_written(tmp_path: Path, writer: str) -> None:
    frames = read(recording := opened({**ROS, **FOXGLOVE}[writer](tmp_path, drive(COUNT, "fox-rgb8"))))
    check_times(recording, frames)
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)


@pytest.mark.parametrize("content", ["png", "jpeg", "fox-png", "fox-jpeg"])
@pytest.mark.parametrize("writer", ["ros1", "ros2 sqlite3", "ros2 mcap", "mcap cdr", *FOXGLOVE])
def test_compressed_pictures_are_the_ones_that_were_written(tmp_path: Path, writer: str, content: str) -> None:
    if writer in FOXGLOVE and not content.startswith("fox-"):
        pytest.skip("ROS's types are not written so")
    messages = drive(COUNT, content)
    recording = opened({**ROS, **FOXGLOVE}[writer](tmp_path, messages))
    frames = read(recording)
    check_times(recording, frames)
    for frame, message in zip(frames, messages):
        written = cv2.imdecode(np.frombuffer(message.fields["data"], np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(frame.image, written)
        assert "png" not in content or np.array_equal(frame.image, picture(frame.number))


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("writer", ["ros1", "ros2 sqlite3", "ros2 mcap", "mcap cdr", *FOXGLOVE])
def test_video_in_messages_is_the_one_that_was_written(tmp_path: Path, writer: str, codec: str) -> None:
    recording = opened({**ROS, **FOXGLOVE}[writer](tmp_path, drive(COUNT, codec)))
    assert recording.keys.tolist() == [number % 5 == 0 for number in range(COUNT)]
    frames = read(recording)
    check_times(recording, frames)
    for frame in frames:  # neighbours differ by 12 and more in one channel
        assert np.abs(frame.image.astype(int) - picture(frame.number)).mean() < 2


@pytest.mark.parametrize("wire", ["ros1", "cdr"])
def test_grey_pictures_become_three_equal_channels(tmp_path: Path, wire: str) -> None:
    frames = read(opened(mcap(tmp_path, drive(COUNT, "mono8"), wire)))
    for frame in frames:
        assert np.array_equal(frame.image, picture(frame.number)[..., [1, 1, 1]])


@pytest.mark.parametrize("kind", [IMAGE, FOX_RAW])
def test_bayer_and_yuv_pictures_with_padding_have_their_colours(tmp_path: Path, kind: str) -> None:
    rows = {f"bayer_{pattern}8": mosaicked(chart(), pattern) for pattern in ("rggb", "bggr", "gbrg", "grbg")}
    rows["yuv422"] = packed(chart(), "uyvy")
    for encoding, pixels in rows.items():
        fields = {**laid_out(pixels, encoding, padding=4, big=1), "width": 48}
        path = mcap(tmp_path, [Logged(kind, START_NS, START_NS, fields)])
        (frame,) = read(opened(path))
        assert np.abs(middles(frame.image).astype(int) - middles(chart())).max() <= 3, encoding
        path.unlink()


@pytest.mark.parametrize(
    "form", ["bgr8; jpeg compressed bgr8", "jpeg", "rgb8; png compressed", "mono8; jpeg compressed "]
)
def test_the_formats_of_image_transport_are_read(tmp_path: Path, form: str) -> None:
    (message,) = drive(1, "png" if "png" in form else "jpeg")
    message.fields["format"] = form
    assert len(read(opened(mcap(tmp_path, [message])))) == 1


def test_messages_of_mcap_ros2_support_are_read(tmp_path: Path) -> None:
    writer: Any = pytest.importorskip("mcap_ros2.writer", reason="needs mcap-ros2-support").Writer
    path, image = tmp_path / "run.mcap", picture(3)
    lines = ["std_msgs/Header header", "uint32 height", "uint32 width", "string encoding", "uint8 is_bigendian"]
    header = ["=" * 80, "MSG: std_msgs/Header", "builtin_interfaces/Time stamp", "string frame_id"]
    text = "\n".join([*lines, "uint32 step", "uint8[] data", *header])
    with path.open("wb") as stream:
        written = writer(stream)
        schema = written.register_msgdef(schema_name(IMAGE, "cdr"), text)
        fields = {**laid_out(image, "bgr8"), "header": {"stamp": {"sec": 5, "nanosec": 7}, "frame_id": "a"}}
        written.write_message("/front", schema, fields, log_time=START_NS)
        written.finish()
    (frame,) = read(opened(path))
    assert np.array_equal(frame.image, image) and frame.stamp_ns == 5_000_000_007


def test_a_single_file_of_a_folder_is_read_without_its_metadata(tmp_path: Path) -> None:
    for folder, name in ((sqlite3(tmp_path, drive(3)), "run.db3"), (ros2_mcap(tmp_path / "b", drive(3)), "run.mcap")):
        (folder / "metadata.yaml").unlink()
        recording = opened(folder / name)
        assert recording.num_frames == 3 and recording.files == (folder / name,)


def test_a_bag_of_a_release_that_writes_no_definitions_is_read(tmp_path: Path) -> None:
    """The tables of ROS 2 Foxy, as rosbag2_storage_default_plugins made them."""
    path, messages = tmp_path / "run.db3", drive(3)
    connection = database.connect(path)
    connection.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT NOT NULL,type TEXT NOT NULL,"
        "serialization_format TEXT NOT NULL,offered_qos_profiles TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY,topic_id INTEGER NOT NULL,timestamp INTEGER NOT NULL,"
        "data BLOB NOT NULL);"
        "INSERT INTO topics VALUES(1,'/tf','tf2_msgs/msg/TFMessage','cdr',''),"
        "(2,'/front','sensor_msgs/msg/Image','cdr','');"
        "INSERT INTO messages VALUES(1,1,5,x'00010000')"
    )
    rows = [(2, message.log_ns, serialised(message, "cdr")) for message in messages]
    connection.executemany("INSERT INTO messages(topic_id,timestamp,data) VALUES(?,?,?)", rows)
    connection.commit()
    connection.close()
    frames = read(opened(path))
    assert [frame.stamp_ns for frame in frames] == [message.stamp_ns for message in messages]
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_of_several_files_is_one_recording(tmp_path: Path, storage: str) -> None:
    messages, suffix = drive(9), "db3" if storage == "sqlite3" else "mcap"
    whole = tmp_path / "run"
    whole.mkdir()
    names = []
    for number in range(3):
        part = write_ros2(tmp_path / f"run_{number}", {"/front": messages[3 * number : 3 * number + 3]}, storage)
        names.append(f"run_{number}.{suffix}")
        (part / names[-1]).rename(whole / names[-1])
    listed = (tmp_path / "run_0" / "metadata.yaml").read_text()
    (whole / "metadata.yaml").write_text(
        listed.replace(f"  - {names[0]}\n", "".join(f"  - {name}\n" for name in names))
    )
    recording = opened(whole)
    assert [file.name for file in recording.files] == names and recording.num_frames == 9
    frames = list(recording.frames([1, 2, 3, 7]))
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)
    assert [frame.number for frame in frames] == [1, 2, 3, 7]


@pytest.mark.parametrize("writer", ["ros1 lz4", "ros2 sqlite3", "mcap cdr", "mcap cdr, small chunks"])
def test_any_frames_are_read_by_their_numbers(tmp_path: Path, writer: str) -> None:
    recording = opened(ROS[writer](tmp_path, drive(COUNT)))
    for numbers in ([5], [0, 6], [2, 3], []):
        frames = list(recording.frames(numbers))
        assert [frame.number for frame in frames] == numbers
        assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)


def test_a_video_is_decoded_from_the_last_key_frame_before_what_is_wanted(tmp_path: Path) -> None:
    recording = opened(mcap(tmp_path, drive(12, "h264")))
    for numbers in ([3], [4, 5], [6, 11], [0, 9]):
        frames = list(recording.frames(numbers))
        assert [frame.number for frame in frames] == numbers
        for frame in frames:
            assert np.abs(frame.image.astype(int) - picture(frame.number)).mean() < 2
    assert numbers_every(recording, 0.5) == [0, 5, 10]


def test_messages_are_in_the_order_in_which_they_were_logged(tmp_path: Path) -> None:
    """An MCAP need not be in order, as when one thread writes what several have."""
    messages = drive(6)
    shuffled = [messages[place] for place in (2, 0, 1, 5, 4, 3)]
    frames = read(opened(mcap(tmp_path, shuffled, chunk_size=9000)))
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)
    assert [frame.time_ns for frame in frames] == [number * PERIOD_NS for number in range(6)]


def test_a_message_without_a_stamp_has_its_log_time(tmp_path: Path) -> None:
    recording = opened(mcap(tmp_path, drive(2, stamps_ns=[0, START_NS])))
    assert [frame.stamp_ns for frame in read(recording)] == [START_NS, START_NS]


def test_two_messages_may_be_logged_at_the_same_time(tmp_path: Path) -> None:
    for write in (ros1, sqlite3, mcap):
        frames = read(opened(write(tmp_path, drive(3, logged_ns=[START_NS] * 3))))
        assert [frame.time_ns for frame in frames] == [0, 0, 0]
        assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what Linux read")
@pytest.mark.parametrize("writer", ["ros1", "ros2 sqlite3", "ros2 mcap", "mcap cdr", "mcap cdr, no chunks"])
def test_opening_reads_the_index_and_one_picture_and_a_frame_reads_its_own(tmp_path: Path, writer: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 160, 240, 3), dtype=np.uint8)
    path = ROS[writer](tmp_path, drive(30, "bgr8", pictures=list(noise)))
    read(opened(path))  # imports what is needed
    before = bytes_read()
    recording = opened(path)
    assert bytes_read() - before < 12 * noise[0].nbytes  # rosbags writes chunks of 8 pictures
    before = bytes_read()
    assert np.array_equal(next(recording.frames([29])).image, noise[29])
    assert bytes_read() - before < 12 * noise[0].nbytes


def bytes_read() -> int:
    """What this process has asked the system for so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_the_picture_is_the_callers(tmp_path: Path) -> None:
    recording = opened(mcap(tmp_path, drive(1, "bgr8")))
    next(recording.frames([0])).image[:] = 0
    assert np.array_equal(next(recording.frames([0])).image, picture(0))


def test_a_bag_is_told_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    path = mcap(tmp_path, drive(2)).rename(tmp_path / "run.bag")
    assert opened(path).num_frames == 2
