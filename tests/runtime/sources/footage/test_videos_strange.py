"""Videos that are cut off, joined, turned, empty, or no videos: what is read of them, and what is said."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Sequence

import av
import cv2
import numpy as np
import pytest
from runtime.sources.footage.videos import number_of, numbered, numbers_of, turned, write_video
from runtime.streams import jpeg, read_images

from rtda_deploy.errors import ConfigError, FileAccessError, SourceError
from rtda_runtime.sources.footage.base import Recording
from rtda_runtime.sources.footage.video import open_video_recording
from rtda_runtime.sources.stream import open_film

REORDERED = {"g": "10", "bf": "2", "x264-params": "scenecut=0"}
TS_PACKET = 188  # bytes


def _read(path: Path) -> Any:
    recording = open_video_recording(path)
    return recording, _numbers(recording)


def _numbers(recording: Recording) -> List[int]:
    return numbers_of([frame.image for frame in recording.frames(range(recording.num_frames))])


def _part(path: Path, share: float, name: str = "part") -> Path:
    content = path.read_bytes()
    cut = path.with_name(f"{name}{path.suffix}")
    cut.write_bytes(content[: int(share * len(content))])
    return cut


# Nothing, or nothing to see


def _no_frames(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()


def _sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("magic", [b"\x89MCAP0\r\n", b"#ROSBAG V2.0\n", b"SQLite format 3\0"])
@pytest.mark.parametrize("library", ["pyav", "opencv"])
def test_a_bag_that_is_typed_as_a_video_is_told(
    magic: bytes, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drive.mp4").write_bytes(magic + b"\0" * 99)
    if library == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"drive\.mp4 is no video but a bag") as caught:
        open_video_recording(tmp_path / "drive.mp4")
    assert caught.value.hint == f"type bag:{tmp_path}/drive.mp4"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("these are my notes\n" * 100), "cannot be opened as a video"),
        (_no_frames, "cannot be opened as a video: it holds nothing"),
        (_sound, "cannot be opened as a video: it holds audio"),
        (lambda path: path.write_bytes(b"\0" * 5000), "cannot be opened as a video"),
    ],
    ids=["text", "no frames", "sound", "zeros"],
)
@pytest.mark.parametrize("library", ["pyav", "opencv"])
def test_a_file_without_pictures_is_told(
    make: Any, said: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "drive.mp4")
    if library == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
        said = "drive.mp4"
    with pytest.raises(SourceError, match=said) as caught:
        open_video_recording(tmp_path / "drive.mp4")
    assert "drive.mp4" in caught.value.message and "in a player" in caught.value.hint


def test_an_empty_file_a_missing_one_and_a_topic_are_told(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").write_bytes(b"")
    with pytest.raises(FileAccessError, match="is empty"):
        open_video_recording(tmp_path / "drive.mp4")
    with pytest.raises(FileAccessError, match=r"nowhere\.mp4"):
        open_video_recording(tmp_path / "nowhere.mp4")
    with pytest.raises(ConfigError, match="no topics"):
        open_video_recording(tmp_path / "drive.mp4", "/front")


def test_a_video_of_one_frame_is_one(tmp_path: Path) -> None:
    recording, numbers = _read(write_video(tmp_path / "one.mp4", count=1))
    assert numbers == [0] and list(recording.times_ns) == [0] and recording.duration_s == 0.0


# Cut off, joined, growing


def test_an_mp4_whose_recorder_was_stopped_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    cut = _part(write_video(tmp_path / "drive.mp4"), 0.6)
    with pytest.raises(SourceError, match="has no end") as caught:
        open_video_recording(cut)
    assert "moov" in caught.value.why and "untrunc" in caught.value.hint


@pytest.mark.parametrize(
    ("suffix", "codec", "share", "said"),
    [
        (".mkv", "libx264", 0.55, "cut off, or its sound is longer: it ends at"),
        (".ts", "libx264", 0.55, "its last packet is not whole"),
        (".webm", "libvpx", 0.55, "cut off, or its sound is longer: it ends at"),
        (".avi", "mpeg4", 0.8, r"cut off: \d+ of 60 frames"),
    ],
)
def test_of_a_video_that_is_cut_off_is_read_what_is_there(
    suffix: str, codec: str, share: float, said: str, tmp_path: Path
) -> None:
    fast = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
    cut = _part(write_video(tmp_path / f"drive{suffix}", codec, count=60, options={"g": "10", **fast}), share)
    recording, numbers = _read(cut)
    assert 5 < len(numbers) < 60 and len(numbers) + recording.damaged == recording.num_frames
    assert numbers == sorted(set(numbers)) and numbers[:5] == [0, 1, 2, 3, 4]
    assert any(re.search(said, note) for note in recording.notes), recording.notes


def test_a_video_that_grows_has_the_frames_that_it_had_when_it_was_opened(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "drive.ts", count=60, options=REORDERED)
    content = whole.read_bytes()
    growing = tmp_path / "growing.ts"
    half = len(content) // TS_PACKET // 2 * TS_PACKET
    growing.write_bytes(content[:half])
    recording = open_video_recording(growing)
    count, numbers = recording.num_frames, _numbers(recording)
    assert 10 < count < 60
    growing.write_bytes(content)
    assert recording.num_frames == count and _numbers(recording)[: count - 3] == numbers[: count - 3]
    assert open_video_recording(growing).num_frames == 60


def test_videos_that_were_joined_are_played_one_after_the_other(tmp_path: Path) -> None:
    content = write_video(tmp_path / "drive.ts", options=REORDERED).read_bytes()
    (tmp_path / "joined.ts").write_bytes(2 * content)
    recording, numbers = _read(tmp_path / "joined.ts")
    assert numbers == 2 * list(range(24))
    assert list(recording.times_ns // 1_000_000) == [40 * number for number in range(48)]
    assert "jumps back (1 times)" in recording.notes[0]
    assert number_of(next(recording.frames([30])).image) == 6


def test_a_video_whose_size_changes_gives_each_frame_in_its_own(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", options=REORDERED)
    large = write_video(tmp_path / "large.ts", options=REORDERED, size_wh=(192, 128))
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    recording = open_video_recording(tmp_path / "both.ts")
    frames = list(recording.frames([0, 23, 24, 47]))
    assert [frame.image.shape[:2] for frame in frames] == [(64, 96), (64, 96), (128, 192), (128, 192)]
    assert numbers_of([frame.image for frame in frames]) == [0, 23, 0, 23] and recording.size_wh == (96, 64)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"g": "10", "bf": "2", "x264-params": "scenecut=0"}),
        ("libx264", {"g": "10", "bf": "3", "x264-params": "scenecut=0:open-gop=1:b-adapt=0"}),
        ("mpeg2video", {"g": "10", "bf": "2"}),
    ],
    ids=["H.264", "H.264, open", "MPEG-2"],
)
def test_a_video_that_starts_between_key_frames_begins_with_the_first_that_can_be_decoded(
    codec: str, options: Dict[str, str], tmp_path: Path
) -> None:
    content = write_video(tmp_path / "drive.ts", codec, count=60, options=options).read_bytes()
    notes = []
    for packets in range(25, 46, 4):
        (tmp_path / "late.ts").write_bytes(content[packets * TS_PACKET :])
        recording, numbers = _read(tmp_path / "late.ts")
        assert recording.num_frames == len(numbers) > 10 and recording.damaged == 0 and recording.keys[0]
        assert numbers == list(range(numbers[0], 60)) == numbers_of(read_images(tmp_path / "late.ts"))
        notes += recording.notes
    assert "begins between two key frames" in notes[0]


def test_bare_h264_that_starts_between_key_frames_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.h264", count=30, options=REORDERED, container="h264")
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\0\0\1\x41") :])
    recording, numbers = _read(path)
    assert numbers == list(range(numbers[0], 30)) and numbers[0] > 0
    assert "begins between two key frames" in recording.notes[0]


def test_frames_that_are_damaged_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.avi", "mjpeg", pixels="yuvj420p")
    content = bytearray(path.read_bytes())
    places = [place for place in range(len(content) - 3) if content[place : place + 3] == b"\xff\xd8\xff"]
    content[places[7] : places[7] + 40] = bytes(40)
    path.write_bytes(content)
    recording = open_video_recording(path)
    frames = list(recording.frames(range(24)))
    assert [frame.number for frame in frames] == [number for number in range(24) if number != 7]
    assert [number_of(frame.image) for frame in frames] == [frame.number for frame in frames]
    assert recording.damaged == 1
    with pytest.raises(SourceError, match="among the 1 that were asked for"):
        list(recording.frames([7]))


def test_whatever_a_decoder_says_of_a_damaged_frame_it_is_left_out_and_counted(tmp_path: Path) -> None:
    """Raw pictures that are cut off are an invalid argument to FFmpeg, broken PNGs an error of zlib's."""
    raw = write_video(tmp_path / "drive.avi", "rawvideo", pixels="bgr24")
    recording, numbers = _read(_part(raw, 0.6))
    assert numbers == list(range(recording.num_frames - 1)) and recording.damaged == 1 and len(numbers) > 5
    path = write_video(tmp_path / "drive.mov", "png", pixels="rgb24")
    content = bytearray(path.read_bytes())
    packed = content.index(b"IDAT", content.index(b"IDAT") + 4) + 4  # of the second picture
    content[packed : packed + 2] = b"\xff\xff"
    path.write_bytes(content)
    recording, numbers = _read(path)
    assert numbers == [0, *range(2, 24)] and recording.damaged == 1


def test_a_packet_of_a_stream_that_is_not_known_does_not_end_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "drive.ts", "mpeg2video", count=150, options={"g": "12"})
    content = bytearray(path.read_bytes())
    begins = [place for place in range(0, len(content), TS_PACKET) if content[place + 1 : place + 3] == b"\x41\x00"]
    content[begins[100] + 2] ^= 0x8E  # of a picture's first packet: whose it is
    path.write_bytes(content)
    recording, numbers = _read(path)
    assert len(numbers) > 140 and len(numbers) + recording.damaged == recording.num_frames
    with contextlib.closing(open_film(path)) as film:
        assert len(read_images(film)) > 140


def test_frames_that_an_edit_list_leaves_away_are_not_missing(tmp_path: Path) -> None:
    """What phones do when a video is trimmed: the file holds more frames than are to be seen."""
    times_ms = [40 * number - 800 for number in range(60)]
    path = write_video(tmp_path / "drive.mp4", count=60, times_ms=times_ms)
    recording, numbers = _read(path)
    assert numbers == list(range(20, 60)) and recording.damaged == 0
    assert recording.notes == ()


# Stored otherwise than shown


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_ten_bits_are_shown_in_eight(codec: str, tmp_path: Path) -> None:
    recording = open_video_recording(write_video(tmp_path / "ten.mkv", codec, pixels="yuv420p10le"))
    frame = next(iter(recording.frames([7])))
    assert frame.image.dtype == np.uint8 and number_of(frame.image) == 7
    assert np.abs(frame.image.astype(int) - numbered(7)).mean() < 6, "neither dark nor wrapped around"


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)], ids=["90", "180", "270"]
)
@pytest.mark.parametrize("library", ["pyav", "opencv"])
def test_a_turned_video_is_shown_upright(
    matrix: Any, turns: int, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = turned(write_video(tmp_path / "turned.mp4"), matrix)
    if library == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    recording = open_video_recording(path)
    image = next(iter(recording.frames([11]))).image
    assert recording.size_wh == (image.shape[1], image.shape[0]) == ((96, 64) if turns == 2 else (64, 96))
    assert image.flags.c_contiguous and number_of(np.rot90(image, turns)) == 11


def test_frames_at_uneven_times_keep_them(tmp_path: Path) -> None:
    times_ms = [0, 33, 67, 400, 1500, 1533, 2740]
    recording = open_video_recording(write_video(tmp_path / "uneven.mkv", count=7, times_ms=times_ms))
    assert list(recording.times_ns // 1_000_000) == times_ms and recording.duration_s == pytest.approx(2.74)


def test_frames_that_an_edit_list_hides_are_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "edited.mp4", options={"g": "10", "bf": "0"})
    content = path.read_bytes()
    place = content.index(b"elst")
    path.write_bytes(content[: place + 16] + struct.pack(">i", 5 * 512) + content[place + 20 :])
    recording, numbers = _read(path)
    assert numbers == list(range(5, 24)) and list(recording.times_ns[:2]) == [0, 40_000_000]
    assert number_of(next(iter(recording.frames([3]))).image) == 8


def test_pictures_of_vp8_that_are_not_to_be_seen_are_no_frames(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "hidden.webm", "libvpx", options={"deadline": "realtime", "cpu-used": "8", "g": "100"}
    )
    with av.open(str(path)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0)][5]
    content = path.read_bytes()
    assert content.count(packet) == 1
    path.write_bytes(content.replace(packet, bytes([packet[0] & ~0x10]) + packet[1:]))
    recording, numbers = _read(path)
    assert numbers == [number for number in range(24) if number != 5]
    assert recording.damaged == 0 and recording.times_ns[5] == 240_000_000


def test_avi_whose_packets_hold_two_pictures_has_each_of_them(tmp_path: Path) -> None:
    """As DivX packs it: a P picture and the B picture before it in one packet, then a packet that stands for none."""
    reordered = {"g": "9", "bf": "1", "b_strategy": "0"}
    plain = write_video(tmp_path / "plain.m4v", "mpeg4", options=reordered, container="m4v")
    with av.open(str(plain)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    group, code, packer = b"\0\0\1\xb3", b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p"
    none = code + b"\x5f\xff"
    kinds = [picture[picture.index(code) + 4] >> 6 for picture in pictures]  # 0: I, 1: P, 2: B
    packets: List[bytes] = [pictures[0].replace(group, packer + group, 1)]
    for picture, kind in zip(pictures[1:], kinds[1:]):
        packets[-1:] = [packets[-1] + picture, none] if kind == 2 else [packets[-1], picture]
    assert packets.count(none) == kinds.count(2) > 5
    with av.open(str(tmp_path / "packed.avi"), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number, content in enumerate(packets):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), number, number
            packet.is_keyframe = content[content.index(code) + 4] >> 6 == 0
            container.mux(packet)
    recording, numbers = _read(tmp_path / "packed.avi")
    assert numbers == list(range(24)) == [number_of(next(iter(recording.frames([one]))).image) for one in range(24)]


def test_frames_whose_times_contradict_the_codec_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mkv", options=REORDERED)
    with av.open(str(plain)) as read, av.open(str(tmp_path / "wrong.mkv"), "w") as container:
        stream = container.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            packet.stream, packet.pts, packet.dts = stream, 40 * number, 40 * number
            container.mux(packet)
    recording = open_video_recording(tmp_path / "wrong.mkv")
    frames = list(recording.frames(range(24)))
    assert [frame.number for frame in frames] == list(range(24)) and recording.damaged == 0
    assert sorted(numbers_of([frame.image for frame in frames])) == list(range(24))


# Several in one file


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_the_picture_of_a_cover_is_not_taken_for_the_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "covered.mp4")
    content = path.read_bytes()
    picture = _box(b"data", struct.pack(">II", 13, 0), jpeg(np.full((16, 16, 3), 200, np.uint8)))
    handler = _box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    cover = _box(b"udta", _box(b"meta", bytes(4), handler, _box(b"ilst", _box(b"covr", picture))))
    moov = content.index(b"moov") - 4
    after = content.index(b"mvhd") - 4
    after += int.from_bytes(content[after : after + 4], "big")
    size = struct.pack(">I", int.from_bytes(content[moov : moov + 4], "big") + len(cover))
    path.write_bytes(content[:moov] + size + content[moov + 4 : after] + cover + content[after:])
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg", "the cover comes first"
    recording, numbers = _read(path)
    assert numbers == list(range(24)) and recording.size_wh == (96, 64) and not recording.notes


def test_of_two_videos_in_a_file_the_first_is_read_and_the_other_told(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams: Sequence[Any] = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, size_wh in zip(streams, ((96, 64), (48, 32))):
            stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
        for number in range(5):
            for stream in streams:
                picture = numbered(number, (stream.width, stream.height))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        for stream in streams:
            container.mux(stream.encode())
    recording, numbers = _read(tmp_path / "two.mkv")
    assert numbers == list(range(5)) and recording.size_wh == (96, 64)
    assert recording.notes == ("holds 2 videos: the first one is read",)


def test_jpegs_of_a_camera_that_were_saved_are_a_video(tmp_path: Path) -> None:
    parts = [jpeg(numbered(number)) for number in range(5)]
    path = tmp_path / "saved.mjpeg"
    path.write_bytes(b"".join(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + part + b"\r\n" for part in parts))
    recording, numbers = _read(path)
    assert numbers == list(range(5)) and recording.keys.all()
    assert list(recording.times_ns // 1_000_000) == [0, 40, 80, 120, 160]
    expected = cv2.imdecode(np.frombuffer(parts[3], np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(next(iter(recording.frames([3]))).image.astype(int) - expected).max() < 12


def test_a_name_that_looks_like_an_address_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("a:b")
    path = write_video(Path("a:b/rtsp:c.mp4"), count=3)
    assert _read(path)[1] == [0, 1, 2]
