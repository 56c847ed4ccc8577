"""Footage as a data set: chosen once, kept whole or not at all, held back at the end, read as pictures are."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Tuple

import numpy as np
import pytest
from training.data.footage.drives import dark, drive, street, write_drive

from rtda_deploy.errors import ConfigError, DataError, FileAccessError, RtdaError, SourceError
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.asked import HoldBack
from rtda_training.data.footage.chosen import chosen_frames
from rtda_training.data.footage.record import FootageRecord
from rtda_training.data.footage.written import write_frames
from rtda_training.readers import UnlabelledSet, open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
av = pytest.importorskip("av", reason="videos are written with PyAV")
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds: 200 frames of 40 streets."""
    return write_drive(tmp_path_factory.mktemp("drives") / "drive.mp4", drive(20))


def kept(cache: Path) -> List[Path]:
    return sorted((cache / "footage-v1").iterdir())


def keys(pictures: UnlabelledSet) -> List[str]:
    return [pictures.key(index) for index in range(len(pictures))]


# what is chosen


def test_one_frame_of_each_street_is_chosen_and_the_end_is_held_back(twenty: Path) -> None:
    train, val, everything = (open_unlabelled(f"video:{twenty}?split={name}") for name in ("train", "val", "all"))
    assert len(train) == 32 and len(val) == 8
    assert keys(everything) == keys(train) + keys(val)
    assert keys(open_unlabelled(str(twenty))) == keys(train)
    assert keys(train)[:3] == ["drive/000000.000s", "drive/000000.500s", "drive/000001.000s"]
    assert keys(val)[0] == "drive/000016.000s"
    for index, number in ((0, 0), (31, 31)):
        assert np.abs(train.frame(index).astype(int) - street(number)).mean() < 8
    assert train.notes == (f"footage video:{twenty}: 40 of 200 frames chosen, the last 4 s are held back",)


def test_a_list_picks_from_the_whole_footage(twenty: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("drive/000019.000s\n000001.500s.png\n")
    chosen = open_unlabelled(f"video:{twenty}?list={tmp_path}/list.txt")
    assert keys(chosen) == ["drive/000019.000s", "drive/000001.500s"]


def test_what_is_dropped_is_told_with_its_reason(tmp_path: Path) -> None:
    still = [street(1)] * 30 + [dark()] * 20 + drive(3)
    found = open_unlabelled(str(write_drive(tmp_path / "d.mp4", still)))
    told = found.left_out()
    assert told["dropped as dark"] == ["d/000003.000s", "d/000003.500s", "d/000004.000s", "d/000004.500s"]
    assert "d/000001.000s" in told["dropped as near-duplicate"] and "d/000000.000s" in keys(found)
    record = chosen_frames(DataAddress.parse(f"video:{tmp_path}/d.mp4")).record
    assert record.looked_at == 16 == len(record.frames) + sum(map(len, told.values()))
    assert set(record.why) == {"dark", "near-duplicate"} and "20 of 255" in record.why["dark"]


def test_select_none_takes_every_frame_of_the_rate(twenty: Path) -> None:
    assert len(open_unlabelled(f"{twenty}?select=none&split=all")) == 200
    assert len(open_unlabelled(f"{twenty}?select=none&split=all&every=2s")) == 10
    part = open_unlabelled(f"{twenty}?select=none&from=5s&to=0:06.5&hold_back=0")
    assert [key[-8:] for key in keys(part)] == [f"{number / 10:07.3f}s" for number in range(50, 65)]


def test_a_count_keeps_the_most_diverse_and_looks_at_fewer(twenty: Path) -> None:
    found = chosen_frames(DataAddress.parse(f"video:{twenty}?count=5"))
    assert len(found.record.frames) == 5 and found.record.every_s == pytest.approx(1.0) and found.record.looked_at == 20
    assert len(open_unlabelled(f"{twenty}?count=10%&split=all")) == 4
    assert len(open_unlabelled(f"{twenty}?count=0&split=all")) == 40


def test_a_lap_that_is_driven_again_is_held_back_too(tmp_path: Path) -> None:
    """What is held back is chosen apart: that it was seen before, in what is trained on, drops no frame of it."""
    lap = drive(4)
    write_drive(tmp_path / "laps.mp4", [*lap, *lap, *lap, *lap, *lap])
    for count, kept in (("", None), ("&count=10", 10), ("&count=2", 2)):
        address = f"video:{tmp_path}/laps.mp4?every=0.5s{count}"
        train, val = (open_unlabelled(f"{address}&split={split}") for split in ("train", "val"))
        assert len(val) == (8 if kept is None else max(1, kept // 5))
        assert kept is None or len(train) + len(val) == kept
        assert min(keys(val)) > max(keys(train))
    (only,) = keys(open_unlabelled(f"video:{tmp_path}/laps.mp4?every=0.5s&count=1&split=all"))
    assert only < min(keys(val))


def test_several_recordings_are_one_timeline(tmp_path: Path) -> None:
    for name, seconds in (("2/b.mp4", 4), ("10/b.mp4", 2), ("a.mkv", 4)):
        write_drive(tmp_path / "drives" / name, drive(seconds))
    asked = f"{tmp_path}/drives?select=none&every=1s"
    everything, val = open_unlabelled(f"{asked}&split=all"), open_unlabelled(f"{asked}&split=val")
    folders = ["10-b.mp4", "2-b.mp4", "a.mkv"]
    assert keys(everything) == [f"{name}/{s:06d}.000s" for name, n in zip(folders, (2, 4, 4)) for s in range(n)]
    assert keys(val) == ["a.mkv/000002.000s", "a.mkv/000003.000s"]
    record = chosen_frames(DataAddress.parse(asked)).record
    assert [Path(entry.name).name for entry in record.recordings] == ["b.mp4", "b.mp4", "a.mkv"]
    assert [entry.begins_s for entry in record.recordings] == pytest.approx([0.0, 4.0, 6.0])


@pytest.mark.parametrize(
    ("hold_back", "count"), [("", 4), ("50%", 10), ("0", 0), ("0%", 0), ("3s", 3), ("0:05", 5), ("500ms", 0)]
)
def test_the_last_piece_is_held_back(twenty: Path, hold_back: str, count: int) -> None:
    asked = f"{twenty}?select=none&every=1s" + (f"&hold_back={hold_back}" if hold_back else "")
    assert len(open_unlabelled(asked)) == 20 - count
    if count:
        assert keys(open_unlabelled(f"{asked}&split=val")) == [f"drive/{n:06d}.000s" for n in range(20 - count, 20)]
        return
    with pytest.raises(DataError, match="has no val frames") as caught:
        open_unlabelled(f"{asked}&split=val")
    assert "hold_back=30%" in caught.value.hint


def test_footage_of_one_frame_is_a_set_of_one(tmp_path: Path) -> None:
    one = write_drive(tmp_path / "one.mp4", [street(1)])
    assert keys(open_unlabelled(str(one))) == ["one/000000.000s"]
    with pytest.raises(DataError, match="no val frames"):
        open_unlabelled(f"{one}?split=val")


# what is refused


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ("speed=2", ConfigError, "option 'speed' is unknown"),
        ("classes=camvid", ConfigError, "no labels"),
        ("topic=/front", ConfigError, "'topic' is unknown"),
        ("count=abc", ConfigError, "no number of frames"),
        ("count=-1", ConfigError, "no number of frames"),
        ("select=none&count=5", ConfigError, "select=none takes every frame"),
        ("select=some", ConfigError, "select=some is unknown"),
        ("hold_back=100%", ConfigError, "nothing to train on"),
        ("hold_back=some", ConfigError, "some is no time"),
        ("hold_back=20s", DataError, "nothing to train on"),
        ("every=0", ConfigError, "no time between frames"),
        ("from=30s", DataError, "nothing lies between"),
        ("from=5s&to=4s", ConfigError, "not after"),
        ("split=test", ConfigError, "split 'test' is unknown"),
        ("list=gone.txt", ConfigError, "gone.txt is neither"),
    ],
)
def test_options_that_make_no_sense(twenty: Path, options: str, error: type, said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        open_unlabelled(f"video:{twenty}?{options}")
    assert isinstance(caught.value, RtdaError) and caught.value.hint


def test_footage_has_no_labels(twenty: Path) -> None:
    with pytest.raises(DataError, match="is footage, which has no labels") as caught:
        open_labelled(str(twenty))
    assert f"--target video:{twenty}" in caught.value.hint


def test_where_every_frame_is_dropped_it_says_why_and_keeps_nothing(tmp_path: Path, cache: Path) -> None:
    night = write_drive(tmp_path / "night.mp4", [dark()] * 20)
    with pytest.raises(DataError, match=r"night\.mp4 is left of 4") as caught:
        open_unlabelled(str(night))
    assert caught.value.why == "4 dark" and "?select=none" in caught.value.hint
    assert kept(cache) == []
    assert len(open_unlabelled(f"{night}?select=none&hold_back=0")) == 20


def test_a_recording_without_a_frame_is_refused(tmp_path: Path, cache: Path) -> None:
    empty = write_drive(tmp_path / "empty.mkv", [])
    with pytest.raises((SourceError, FileAccessError), match=r"empty\.mkv"):
        open_unlabelled(str(empty))
    with pytest.raises(FileAccessError, match=r"gone\.mp4"):
        open_unlabelled(f"{tmp_path}/gone.mp4")


def test_two_topics_are_named_and_one_is_taken(tmp_path: Path) -> None:
    bags = pytest.importorskip("runtime.sources.bags")
    bag = tmp_path / "run.mcap"
    bags.write_mcap(bag, {"/front": bags.drive(10), "/rear": bags.drive(10)})
    with pytest.raises(SourceError, match="2 topics of pictures") as caught:
        open_unlabelled(str(bag))
    assert "/front" in caught.value.hint and "?topic=/rear" in caught.value.hint
    found = open_unlabelled(f"{bag}?topic=/rear&select=none&hold_back=0")
    assert len(found) == 10 and np.array_equal(found.frame(3), bags.picture(3))


@pytest.mark.parametrize("write", ["write_ros1", "write_ros2", "write_mcap"])
def test_bags_are_footage_with_the_stamps_of_their_messages(tmp_path: Path, write: str, cache: Path) -> None:
    bags = pytest.importorskip("runtime.sources.bags")
    if write != "write_mcap":
        pytest.importorskip("rosbags")
    bag = tmp_path / {"write_ros1": "run.bag", "write_ros2": "run", "write_mcap": "run.mcap"}[write]
    getattr(bags, write)(bag, {"/front": bags.drive(10)})
    found = open_unlabelled(f"{bag}?select=none&split=all")
    assert str(found.address).startswith(f"bag:{bag}?") and keys(found)[9] == "run/000000.900s"
    assert all(np.array_equal(found.frame(number), bags.picture(number)) for number in range(10))
    frames = FootageRecord.read(kept(cache)[0]).frames
    assert [frame.stamp_ns - frames[0].stamp_ns for frame in frames] == [
        number * bags.PERIOD_NS for number in range(10)
    ]
    assert frames[0].stamp_ns == bags.START_NS - bags.LAG_NS
    file = next(path for path in ([bag] if bag.is_file() else sorted(bag.iterdir())))
    os.utime(file, ns=(1, 1))
    open_unlabelled(f"{bag}?select=none&split=all")
    assert len(kept(cache)) == 2


# the cache


def test_the_second_time_nothing_is_decoded(twenty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: List[Tuple[int, int]] = []
    first = open_unlabelled(f"video:{twenty}", progress=lambda *step: told.append(step))
    assert told == [(done, 40) for done in range(1, 41)]
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "rtda_training.data.footage.choosing", None)
    monkeypatch.chdir(twenty.parent)
    again = open_unlabelled("drive.mp4", progress=lambda *step: told.append(step))
    assert len(told) == 40 and keys(again) == keys(first) and len(again) == 32


def test_a_file_that_changed_is_chosen_from_anew(tmp_path: Path, cache: Path) -> None:
    path = write_drive(tmp_path / "d.mp4", drive(2))
    assert len(open_unlabelled(f"{path}?split=all")) == 4
    write_drive(path, drive(3))
    assert len(open_unlabelled(f"{path}?split=all")) == 6
    os.utime(path, ns=(1, 1))
    open_unlabelled(str(path))
    assert len(kept(cache)) == 3


def test_frames_are_kept_without_loss(twenty: Path, cache: Path) -> None:
    from rtda_runtime.sources.footage.kinds import open_footage

    found = open_unlabelled(f"video:{twenty}?every=5s&select=none&hold_back=0")
    frames = open_footage(twenty)[0].frames([0, 50, 100, 150])
    for index, frame in enumerate(frames):
        assert np.array_equal(found.frame(index), frame.image)
    record = json.loads((kept(cache)[0] / "frames.json").read_text())
    assert [entry["number"] for entry in record["frames"]] == [0, 50, 100, 150]
    assert record["frames"][1]["stamp_ns"] == 5_000_000_000 and record["recordings"][0]["size"] == "96x64"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_nothing_is_left_when_it_breaks_off(twenty: Path, cache: Path, error: type) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise error

    with pytest.raises((KeyboardInterrupt, DataError)):
        open_unlabelled(str(twenty), progress=stop)
    assert kept(cache) == []


@pytest.mark.parametrize("frame", ["000004.000s", "000019.500s"])
def test_a_full_disk_is_one_error_with_its_size_and_its_fix(
    twenty: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    stored = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if frame in self.name:
            raise OSError(28, "No space left on device")
        return stored(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileAccessError, match="No space left") as caught:
        open_unlabelled(str(twenty))
    assert "RTDA_CACHE" in caught.value.hint and "40 frames are looked at" in caught.value.why
    assert caught.value.why.endswith("MB") and kept(cache) == []


def test_a_cache_that_cannot_be_written_to_says_so(twenty: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(FileAccessError) as caught:
        open_unlabelled(str(twenty))
    assert "RTDA_CACHE" in caught.value.hint


def test_a_record_that_somebody_broke_says_what_to_delete(twenty: Path, cache: Path) -> None:
    open_unlabelled(str(twenty))
    (kept(cache)[0] / "frames.json").write_text("{}")
    with pytest.raises(DataError, match="no record of frames") as caught:
        open_unlabelled(str(twenty))
    assert str(kept(cache)[0]) in caught.value.hint


def test_two_processes_that_choose_at_once_both_end_with_a_whole_choice(twenty: Path, cache: Path) -> None:
    def overtaken(done: int, total: int) -> None:
        if done == 1:
            open_unlabelled(str(twenty))

    assert len(open_unlabelled(str(twenty), progress=overtaken)) == 32
    assert len(kept(cache)) == 1


def test_what_a_killed_process_left_is_taken_away(twenty: Path, cache: Path) -> None:
    code = (
        "import os, signal, sys; from rtda_training.readers import open_unlabelled\n"
        "open_unlabelled(sys.argv[1], progress=lambda done, total: done == 20 and os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(twenty)], stderr=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL and len(kept(cache)) == 1
    lock = kept(cache)[0] / ".lock"
    os.utime(lock, (time.time() - 100,) * 2)
    with open(lock) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it
    assert len(open_unlabelled(str(twenty))) == 32
    assert len(kept(cache)) == 1 and not kept(cache)[0].name.startswith(".")


# frames in a folder of one's own


def test_written_frames_are_the_same_set_as_a_folder(twenty: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    found = chosen_frames(DataAddress.parse(str(twenty)))
    assert write_frames(found, out) == 40
    for split in ("train", "val"):
        film, folder = (open_unlabelled(f"{text}?split={split}") for text in (twenty, f"folder:{out}"))
        assert keys(film) == keys(folder)
        assert all(np.array_equal(film.frame(index), folder.frame(index)) for index in range(len(film)))
    record = FootageRecord.read(out)
    assert all((out / frame.file).is_file() for frame in record.frames) and len(record.frames) == 40


def test_writing_goes_on_where_it_was_and_refuses_what_is_not_its_own(twenty: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    found = chosen_frames(DataAddress.parse(f"{twenty}?count=8"))

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(found, out, progress=stop)
    assert write_frames(found, out) == 5 and write_frames(found, out) == 0
    with pytest.raises(ConfigError, match="frames of another choice"):
        write_frames(found, out, "train")
    with pytest.raises(ConfigError, match="frames of another choice"):
        write_frames(chosen_frames(DataAddress.parse(str(twenty))), out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"holds other files, such as holiday\.jpg"):
        write_frames(found, tmp_path / "mine")
    (out / "frames.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"frames\.json of something else"):
        write_frames(found, out)


@pytest.mark.parametrize(
    ("text", "seconds"), [("20%", 20.0), ("0", 0.0), ("12.5%", 12.5), ("90s", 90.0), ("1:00", 60.0)]
)
def test_how_much_is_held_back_of_100_seconds(text: str, seconds: float) -> None:
    assert HoldBack.parse(text, "video:a.mp4").of(100.0, "a.mp4") == pytest.approx(seconds)


def test_few_frames_are_told(tmp_path: Path) -> None:
    write_drive(tmp_path / "d.mp4", drive(2))
    assert (
        "4 frames are few to adapt to: some dozens are wanted" in open_unlabelled(f"{tmp_path}/d.mp4?split=all").notes
    )
