"""Bags that are broken, strange or of several cameras: what is read of them all the same, and what is said."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec
from runtime.sources.bags import (
    COMPRESSED,
    FOX_VIDEO,
    IMAGE,
    PERIOD_NS,
    START_NS,
    Logged,
    drive,
    encoded_picture,
    encoded_video,
    laid_out,
    log_times,
    picture,
    raw,
    serialised,
    write_mcap,
    write_ros1,
    write_ros2,
)

from rtda_deploy.errors import FileAccessError, MissingPackageError, RtdaError, SourceError
from rtda_runtime import Segmenter
from rtda_runtime.sources.footage import RecordedFrame, Recording, open_footage

pytest.importorskip("mcap", reason="needs mcap")

FRONT = "/front"


def opened(path: Path, topic: Optional[str] = None) -> Recording:
    (recording,) = open_footage(f"bag:{path}" + (f"?topic={topic}" if topic else ""))
    return recording


def read(recording: Recording) -> List[RecordedFrame]:
    return list(recording.frames(range(recording.num_frames)))


def mcap(folder: Path, topics: Dict[str, List[Logged]], **options: Any) -> Path:
    return write_mcap(folder / "run.mcap", topics, **options)


def refused(path: Path, topic: Optional[str] = None, error: type[RtdaError] = SourceError) -> RtdaError:
    with pytest.raises(error) as caught:
        opened(path, topic)
    return caught.value


def said(error: RtdaError) -> str:
    return f"{error.message} | {error.why} | {error.hint}"


def images(fields: List[Dict[str, Any]], kind: str = IMAGE) -> List[Logged]:
    return [Logged(kind, time, time, each) for time, each in zip(log_times(len(fields)), fields)]


def test_a_bag_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "run", {FRONT: drive(1)}) / "run.db3"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE topics SET type = ?", ("sensor_msgs/msg/CameraInfo",))
    connection.close()
    text = said(refused(path))
    assert "holds no pictures" in text and "sensor_msgs/msg/CameraInfo (1)" in text and "CompressedVideo" in text


def test_a_topic_without_messages_is_no_topic_of_pictures(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "run", {FRONT: drive(2), "/rear": drive(2)})
    with sqlite3.connect(folder / "run.db3") as connection:
        connection.execute("DELETE FROM messages WHERE topic_id = 2")
    connection.close()
    assert opened(folder).topic == FRONT
    with sqlite3.connect(folder / "run.db3") as connection:
        connection.execute("DELETE FROM messages")
    connection.close()
    text = said(refused(folder))
    assert "it has no messages; /front, /rear is there, without messages" in text


@pytest.mark.parametrize("kind", ["ros1", "sqlite3", "mcap"])
def test_several_topics_are_listed_with_type_count_and_address(tmp_path: Path, kind: str) -> None:
    topics = {FRONT: drive(3), "/rear/compressed": drive(2, "jpeg")}
    path = write_ros1(tmp_path / "run.bag", topics) if kind == "ros1" else write_ros2(tmp_path / "run", topics, kind)
    error = refused(path)
    assert error.message == f"{path} has 2 topics of pictures"
    assert "/front (sensor_msgs/msg/Image, 3 messages)" in error.why
    assert "/rear/compressed (sensor_msgs/msg/CompressedImage, 2 messages)" in error.why
    assert f"bag:{path}?topic=/front" in error.hint and f"bag:{path}?topic=/rear/compressed" in error.hint
    for topic, count in ((FRONT, 3), ("/rear/compressed", 2), ("front", 3)):
        recording = opened(path, topic)
        assert recording.num_frames == count and recording.name == f"{path} {recording.topic}"


def test_a_topic_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    path = mcap(tmp_path, {FRONT: drive(3)})
    error = refused(path, "/left")
    assert f"{path} has no pictures in a topic /left" in error.message and f"bag:{path}?topic=/front" in error.hint


def test_a_depth_camera_beside_a_colour_camera_is_not_meant(tmp_path: Path) -> None:
    depth = images([laid_out(np.zeros((4, 6), np.uint16), "16UC1")] * 2)
    png = images([{"format": "16UC1; compressedDepth png", "data": b"x"}], COMPRESSED)
    path = mcap(tmp_path, {"/depth": depth, FRONT: drive(2), "/depth/compressed": png})
    assert opened(path).topic == FRONT
    assert "image has encoding '16UC1'" in said(refused(path, "/depth"))
    assert "image is compressedDepth" in said(refused(path, "/depth/compressed"))


@pytest.mark.parametrize("encoding", ["nv24", "mono16", "32FC1", "bayer_rggb16", "hologram"])
def test_an_unknown_encoding_is_named_with_those_that_are_known(tmp_path: Path, encoding: str) -> None:
    fields = {**raw(picture(0), "bgr8"), "encoding": encoding}
    text = said(refused(mcap(tmp_path, {FRONT: images([fields] * 3)})))
    assert f"image has encoding '{encoding}'" in text and "known: bgr8, rgb8" in text and "run.mcap" in text


def test_messages_in_an_encoding_that_is_not_read_are_named(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "run", {FRONT: drive(1)})
    with sqlite3.connect(folder / "run.db3") as connection:
        connection.execute("UPDATE topics SET serialization_format = 'flatbuffer'")
    connection.close()
    assert "in the encoding 'flatbuffer', which is not read" in said(refused(folder))
    path = mcap(tmp_path, {FRONT: drive(1)}, wire="json")  # a type of ROS, for which no JSON is agreed
    assert "in the encoding 'json', which is not read" in said(refused(path))


def test_a_recording_of_one_frame_lasts_no_time(tmp_path: Path) -> None:
    recording = opened(mcap(tmp_path, {FRONT: drive(1)}))
    assert (recording.num_frames, recording.duration_s, len(read(recording))) == (1, 0.0, 1)


@pytest.mark.parametrize("damage", ["no index", "cut off"])
def test_a_bag_of_ros_1_without_its_index_says_how_to_make_it(tmp_path: Path, damage: str) -> None:
    path = write_ros1(tmp_path / "run.bag", {FRONT: drive(9)})
    content = bytearray(path.read_bytes())
    if damage == "no index":  # as a recorder that was killed leaves it
        place = content.index(b"index_pos=") + len(b"index_pos=")
        content[place : place + 8] = bytes(8)
    path.write_bytes(content if damage == "no index" else content[: len(content) * 2 // 3])
    text = said(refused(path))
    assert f"{path} cannot be read as a bag of ROS 1" in text and "rosbag reindex run.bag" in text
    assert "not indexed" in text or "index looks damaged" in text


def test_a_recorder_that_was_killed_leaves_an_mcap_that_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    options: Dict[str, Any] = {"chunk_size": 5000}
    whole = mcap(tmp_path, {FRONT: drive(9)}, **options)
    content = whole.read_bytes()
    killed = tmp_path / "killed.mcap"
    killed.write_bytes(content[: len(content) // 2])
    recording = opened(killed)
    frames = read(recording)
    assert 0 < recording.num_frames < 9 and [frame.number for frame in frames] == list(range(recording.num_frames))
    assert all(np.array_equal(frame.image, picture(frame.number)) for frame in frames)
    assert "it has no end: it was cut off, or is being written" in recording.notes[0]
    killed.write_bytes(content[:200])
    assert "holds no pictures" in said(refused(killed))


def test_an_mcap_whose_summary_is_missing_or_lacks_its_index_is_walked_through(tmp_path: Path) -> None:
    from mcap.writer import IndexType

    for options in ({"index_types": IndexType.NONE}, {"use_statistics": False}, {"repeat_channels": False}):
        recording = opened(mcap(tmp_path, {FRONT: drive(5)}, chunk_size=5000, **options))
        assert recording.num_frames == 5 and recording.notes == []
        assert all(np.array_equal(frame.image, picture(frame.number)) for frame in read(recording))


def test_a_bag_may_grow_while_it_is_read(tmp_path: Path) -> None:
    from mcap.writer import CompressionType, Writer

    path, messages = tmp_path / "run.mcap", drive(6)
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=4000, compression=CompressionType.NONE)
        writer.start("ros2")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel(FRONT, "cdr", schema)
        counts = []
        for message in messages:
            writer.add_message(channel, message.log_ns, serialised(message, "cdr"), message.log_ns)
            stream.flush()
            counts.append(_count(path))
        early = opened(path)
        writer.finish()
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert [frame.number for frame in read(early)] == list(range(counts[-1]))
    assert opened(path).num_frames == 6


def _count(path: Path) -> int:
    try:
        return opened(path).num_frames
    except SourceError:
        return 0


def test_a_db3_that_is_being_written_is_read_as_it_is(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "run", {FRONT: drive(4)})
    writer = sqlite3.connect(folder / "run.db3")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("DELETE FROM messages WHERE id = 4")
    writer.commit()
    recording = opened(folder)  # three, of which the deletion stands in run.db3-wal
    assert recording.num_frames == 3 and len(read(recording)) == 3
    writer.close()
    assert opened(folder).num_frames == 3


def test_clocks_that_jump_back_are_told_and_the_log_times_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = [START_NS + (number - 20 * (number > 3)) * PERIOD_NS for number in range(7)]
    recording = opened(mcap(tmp_path, {FRONT: drive(7, stamps_ns=stamps)}))
    frames = read(recording)
    assert [frame.stamp_ns for frame in frames] == stamps and (np.diff(recording.times_ns) > 0).all()
    (note,) = recording.notes
    assert note.startswith("the stamps of its messages jump back once, by up to 1.9 s")
    assert caplog.text.count("jump back") == 1 and len(read(recording)) == 7
    assert caplog.text.count("jump back") == 1


def test_a_recorder_whose_clock_was_set_back_is_told(tmp_path: Path) -> None:
    logged = [START_NS + place * PERIOD_NS for place in (10, 11, 5, 6, 12, 3)]
    for number, write in enumerate((write_ros1, write_ros2, write_mcap)):
        recording = opened(
            write(tmp_path / f"run{number}{['.bag', '', '.mcap'][number]}", {FRONT: drive(6, logged_ns=logged)})
        )
        assert [frame.time_ns // PERIOD_NS for frame in read(recording)] == [0, 2, 3, 7, 8, 9]
        assert "the recorder's clock jumps back 2 times, by up to 0.9 s" in recording.notes[0]


def test_a_corrupt_jpeg_among_good_ones_is_left_out_and_counted(tmp_path: Path) -> None:
    messages = drive(6, "jpeg")
    for number, data in ((0, b"no JPEG at all"), (3, messages[3].fields["data"][:200])):
        messages[number].fields["data"] = data
    recording = opened(mcap(tmp_path, {FRONT: messages}))
    assert recording.num_frames == 6 and recording.damaged == 0
    assert [frame.number for frame in read(recording)] == [1, 2, 4, 5] and recording.damaged == 2
    with pytest.raises(SourceError, match="none of 2 pictures can be decoded; the first: compressed image of 14 bytes"):
        list(recording.frames([0, 3]))


def test_pictures_whose_data_is_too_short_are_left_out_and_counted(tmp_path: Path) -> None:
    messages = drive(4)
    messages[2].fields["data"] = messages[2].fields["data"][:-1]
    recording = opened(mcap(tmp_path, {FRONT: messages}))
    assert [frame.number for frame in read(recording)] == [0, 1, 3] and recording.damaged == 1


def test_where_no_picture_is_whole_the_first_says_why(tmp_path: Path) -> None:
    fields = {**raw(picture(0), "bgr8"), "step": 1000}
    text = said(refused(mcap(tmp_path, {FRONT: images([fields] * 3)})))
    assert "none of 3 pictures can be decoded" in text and "with step 1000 and 4608 bytes" in text


def test_a_size_that_changes_is_given_as_it_is(tmp_path: Path) -> None:
    pictures = [picture(0), picture(1, (64, 40)), picture(2)]
    recording = opened(mcap(tmp_path, {FRONT: drive(3, "jpeg", pictures=pictures)}))
    assert recording.size_wh == (48, 32)
    assert [frame.image.shape[:2] for frame in read(recording)] == [(32, 48), (40, 64), (32, 48)]


def test_a_chunk_that_is_damaged_loses_its_own_pictures(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)
    path = mcap(tmp_path, {FRONT: drive(6, pictures=list(noise))}, chunk_size=9000)  # two in each
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    content[place : place + 64] = bytes(64)
    path.write_bytes(content)
    recording = opened(path)
    assert [frame.number for frame in read(recording)] == [0, 1, 4, 5] and recording.damaged == 2


def test_video_that_begins_between_key_frames_begins_at_the_first(tmp_path: Path) -> None:
    messages = drive(14, "h264")[2:]
    recording = opened(mcap(tmp_path, {FRONT: messages}))
    assert recording.notes == ["it begins between two key frames: 3 frames before the first are left out"]
    frames = read(recording)
    assert [frame.time_ns for frame in frames] == [number * PERIOD_NS for number in range(9)]
    assert recording.keys.tolist() == [True] + [False] * 4 + [True] + [False] * 3
    for frame in frames:
        assert np.abs(frame.image.astype(int) - picture(frame.number + 5)).mean() < 2


def test_video_without_a_key_frame_is_refused(tmp_path: Path) -> None:
    text = said(refused(mcap(tmp_path, {FRONT: drive(5, "h264")[1:]})))
    assert "holds no key frame in 4 frames of h264" in text and "IDR with SPS" in text


def test_parameters_that_come_once_or_in_a_message_of_their_own_are_kept(tmp_path: Path) -> None:
    messages = drive(12, "h264")
    units = [re.split(rb"\x00?\x00\x00\x01", message.fields["data"])[1:] for message in messages]
    assert [unit[0] & 31 for unit in units[0][:2]] == [7, 8]
    first = b"".join(b"\0\0\0\1" + unit for unit in units[0][:2])
    alone = Logged(FOX_VIDEO, START_NS - 1, START_NS, {"format": "h264", "data": first})
    for message, pieces in zip(messages, units):
        kept = [piece for piece in pieces if piece[0] & 31 not in (7, 8)]
        message.fields["data"] = b"".join(b"\0\0\0\1" + piece for piece in kept)
    recording = opened(mcap(tmp_path, {FRONT: [alone, *messages]}))
    assert recording.num_frames == 12 and np.flatnonzero(recording.keys).tolist() == [0, 5, 10]
    for numbers in ([5], [7], [0, 11]):
        for frame in recording.frames(numbers):
            assert np.abs(frame.image.astype(int) - picture(frame.number)).mean() < 2


def test_a_damaged_message_loses_the_video_up_to_the_next_key_frame(tmp_path: Path) -> None:
    messages = drive(15, "h264")
    messages[7].fields["data"] = b"\0\0\0\1\x41\xff\xff" + bytes(40)
    recording = opened(mcap(tmp_path, {FRONT: messages}))
    frames = read(recording)
    numbers = [frame.number for frame in frames]
    assert set(range(7)) <= set(numbers) and set(range(10, 15)) <= set(numbers) and 7 not in numbers
    assert recording.damaged == 15 - len(numbers) > 0


@pytest.mark.parametrize(("form", "known"), [("vp9", "h264, h265"), ("av1", "h264, h265"), ("", "h264")])
def test_video_of_another_format_is_named(tmp_path: Path, form: str, known: str) -> None:
    video = images([{"format": form, "data": b"x"}] * 2, FOX_VIDEO)
    text = said(refused(mcap(tmp_path, {FRONT: video})))
    assert f"holds video of format {form!r}" in text and known in text


def test_h264_that_is_not_in_annex_b_is_told(tmp_path: Path) -> None:
    data = encoded_video([picture(0)])[0].replace(b"\0\0\0\1", b"\0\0\2\0").replace(b"\0\0\1", b"\0\2\0")
    text = said(refused(mcap(tmp_path, {FRONT: images([{"format": "h264", "data": data}], FOX_VIDEO)})))
    assert "holds no picture of h264" in text and "Annex B" in text


@pytest.mark.parametrize("suffix", ["mcap", "bag", "db3"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"some notes of mine\n", "is no bag but a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (bytes(range(256)) * 9, "is no bag of a known format"),
        (encoded_picture(picture(0), "png"), "PNG"),
    ],
)
def test_a_file_that_is_no_bag_is_called_what_it_is(tmp_path: Path, suffix: str, content: bytes, what: str) -> None:
    path = tmp_path / f"run.{suffix}"
    path.write_bytes(content)
    assert what in said(refused(path))


def test_an_empty_file_and_one_that_is_not_there_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    assert "not there" in said(refused(path, error=FileAccessError))
    path.touch()
    assert "empty" in said(refused(path, error=FileAccessError))


def test_a_database_that_is_no_bag_names_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "run.db3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    connection.close()
    text = said(refused(path))
    assert "is an SQLite file, but no bag of ROS 2" in text and "birds" in text


def test_a_database_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = write_ros2(tmp_path / "run", {FRONT: drive(20)}) / "run.db3"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    text = said(refused(path))
    assert f"{path} cannot be read as a bag of ROS 2" in text and ".recover" in text


def test_metadata_that_names_missing_files_says_which(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "run", {FRONT: drive(2)})
    listed = folder / "metadata.yaml"
    listed.write_text(listed.read_text().replace("  - run.db3\n", "  - run.db3\n  - 'run_1.db3'\n"))
    error = refused(folder, error=FileAccessError)
    assert error.message == f"{folder} lacks run_1.db3" and error.hint.endswith(f"bag:{folder / 'run.db3'}")


@pytest.mark.parametrize("text", ["rosbag2_bagfile_information:\n  version: 9\n", "", "a: [1\n"])
def test_metadata_that_names_no_files_is_told(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metadata.yaml").write_text(text)
    assert (
        "names no files" in said(refused(folder)) if text else "metadata.yaml" in said(refused(folder, error=RtdaError))
    )


def test_metadata_in_one_line_and_of_old_releases_is_read(tmp_path: Path) -> None:
    folder = write_ros2(tmp_path / "run", {FRONT: drive(2)})
    listed = folder / "metadata.yaml"
    old = "relative_file_paths:\n  - run.db3\n"
    for new in ('relative_file_paths: ["run.db3"]\n', "relative_file_paths:\n    - run/run.db3\n"):
        assert old in listed.read_text()
        kept = listed.read_text()
        listed.write_text(kept.replace(old, new))
        assert opened(folder).num_frames == 2
        listed.write_text(kept)


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    for finish in (True, False):
        path = mcap(tmp_path, {FRONT: drive(3)}, finish=finish, chunk_size=3000)
        path.write_bytes(path.read_bytes().replace(b"\4\0\0\0zstd", b"\4\0\0\0lzma"))
        assert "is compressed with 'lzma', which is unknown | " in said(refused(path))
    bag = write_ros1(tmp_path / "run.bag", {FRONT: drive(3)}, compression="bz2")
    bag.write_bytes(bag.read_bytes().replace(b"compression=bz2", b"compression=rar"))
    assert "'rar' is not supported" in said(refused(bag))


def test_an_encrypted_bag_is_told(tmp_path: Path) -> None:
    bag = write_ros1(tmp_path / "run.bag", {FRONT: drive(3)})
    content = bag.read_bytes()
    old = (69).to_bytes(4, "little")
    assert content[13:17] == old  # the header of the bag, and behind it what fills it up to 4096 bytes
    field = b"encryptor=rosbag/AesCbc"
    more = len(field).to_bytes(4, "little") + field
    filler = int.from_bytes(content[86:90], "little")
    head = content[:13] + (69 + len(more)).to_bytes(4, "little") + content[17:86] + more
    bag.write_bytes(head + (filler - len(more)).to_bytes(4, "little") + content[90 + len(more) :])
    assert "encryption 'rosbag/AesCbc' is not supported" in said(refused(bag))


@pytest.mark.parametrize(("kind", "module"), [("ros1", "rosbags"), ("mcap", "mcap"), ("video", "av")])
def test_a_missing_package_is_told_with_its_pip_line(
    tmp_path: Path, kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = {FRONT: drive(2, "h264" if kind == "video" else "rgb8")}
    path = write_ros1(tmp_path / "run.bag", topics) if kind == "ros1" else mcap(tmp_path, topics)
    for name in {module, *(name for name in sys.modules if name.partition(".")[0] == module)}:
        monkeypatch.setitem(sys.modules, name, None)  # how Python marks what cannot be imported
    error = refused(path, error=MissingPackageError)
    assert module in error.message
    assert error.hint == f"pip install 'rtda-deploy[{'runtime' if kind == 'video' else 'footage'}]'"


def test_what_we_publish_ourselves_is_no_footage_unless_it_is_asked_for(tmp_path: Path) -> None:
    from rtda_runtime.sinks.publish import open_publisher

    path = tmp_path / "own.mcap"
    with Segmenter(NumpyEngine(tiny_spec())) as segmenter, open_publisher(
        f"mcap:{path}", segmenter.spec, name="x"
    ) as sink:
        for number in range(3):
            sink.write(segmenter.segment(picture(number, (64, 64))))
    text = said(refused(path))
    assert "holds masks and overlays of rtda-deploy, not what its camera saw" in text
    assert f"bag:{path}?topic=/rtda/overlay" in text
    frames = read(opened(path, "/rtda/overlay"))
    assert len(frames) == 3 and frames[0].image.shape == (64, 64, 3)
