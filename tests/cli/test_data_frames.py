"""``rtda-deploy data frames``: what is chosen of footage, as a table and as a folder of pictures."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from cli.commandline import arguments, assert_refused, environment, files_below, invoke, run_command
from training.data.footage.drives import dark, drive, street, write_drive

pytest.importorskip("cv2", reason="pictures need OpenCV")
pytest.importorskip("av", reason="videos are written with PyAV")


@pytest.fixture()
def film(here: Path) -> Path:
    """Eight seconds of streets and two dark ones, as ``drive.mp4``."""
    return write_drive(here / "drive.mp4", [*drive(8), *[dark()] * 20])


def test_the_example_in_the_help_runs(film: Path) -> None:
    shown = invoke("data", "frames", "--help")
    line = next(line for line in shown.out.splitlines() if "Example:" in line)
    words = shlex.split(line.split("Example:")[1].strip(" │"))
    assert words[:3] == ["rtda-deploy", "data", "frames"]
    assert invoke(*words[1:]).code == 0
    assert "frames" in run_command("data", "--help").out


def test_it_shows_what_was_dropped_and_kept_and_what_to_type_next(film: Path) -> None:
    outcome = invoke("data", "frames", "drive.mp4")
    assert outcome.code == 0, outcome.err
    found = [re.match(r" *(\D+?) +(\d+)(?!\S)", line) for line in outcome.out.splitlines()]
    assert {line[1]: int(line[2]) for line in found if line} == {
        "in the footage": 100,
        "looked at": 20,
        "dropped: dark": 4,
        "kept": 16,
        "to train on": 16,
        "held back": 0,
    }
    assert "below 20 of 255" in outcome.out and "the last 2.0 s" in outcome.out
    assert "next    rtda-deploy train --source DATA --target video:drive.mp4" in outcome.err
    assert "! no frame is held back: none was kept of the last 2.0 s; ?hold_back= holds more" in outcome.err
    assert not (Path("frames")).exists()


def test_json_is_one_object_and_flags_are_options_of_the_address(film: Path) -> None:
    words = ("data", "frames", "drive.mp4?hold_back=50%", "--every", "1s", "--count", "6", "--json")
    values = invoke(*words).json
    assert values["footage"] == "video:drive.mp4?hold_back=50%&every=1s&count=6"
    assert (values["looked_at"], values["kept"], values["held_back_s"]) == (10, 6, 5.0)
    assert values["dropped"] == {"dark": 2, "less diverse": 2} and set(values["why"]) == {"dark", "less diverse"}
    assert values["train"] + values["val"] == 6 and values["out"] is None
    assert (Path(values["cache"]) / "frames.json").is_file()


def test_frames_are_written_as_a_set_with_its_split_and_once(film: Path) -> None:
    words = ("data", "frames", "drive.mp4?hold_back=5s&select=none", "--every", "1s", "--out", "mine/frames")
    first = invoke(*words)
    assert first.code == 0, first.err
    assert first.out.splitlines()[-1] == "mine/frames" and "10 frames written, 0 were there" in first.err
    pictures = [name for name in files_below(Path("mine/frames")) if name.endswith(".png")]
    assert pictures == [f"{'train' if s < 5 else 'val'}/images/drive/{s:06d}.000s.png" for s in range(10)]
    Path("mine/frames", pictures[3]).unlink()
    assert "1 frames written, 9 were there" in invoke(*words).err
    told = first.err.split("next", 1)[1].split("--target", 1)[1].split()[0]
    assert told == "folder:mine/frames"
    for split in ("train", "val"):
        assert ": 5 pictures" in invoke("data", "check", told, "--target", "--split", split).out


def test_the_split_test_is_what_is_held_back(film: Path) -> None:
    words = ("data", "frames", "drive.mp4?hold_back=5s&select=none&split=test", "--every", "1s", "--out", "held")
    values = invoke(*words, "--json").json
    assert (values["train"], values["val"], values["written"], values["written_before"]) == (5, 5, 5, 0)
    pictures = [name for name in files_below(Path("held")) if name.endswith(".png")]
    assert pictures == [f"val/images/drive/{s:06d}.000s.png" for s in range(5, 10)]


def test_check_says_what_footage_lost(film: Path) -> None:
    outcome = invoke("data", "check", "drive.mp4", "--target")
    assert outcome.code == 0 and outcome.out.startswith("video:drive.mp4: 16 pictures, 96x64 (16)")
    assert "footage video:drive.mp4: 16 of 100 frames chosen, the last 2 s are held back" in outcome.err
    assert "left out: dropped as dark: 4" in outcome.err and "drive/000008.000s" in outcome.err
    refused = invoke("data", "check", "drive.mp4")
    assert_refused(refused, 1, "no labels", "--target video:drive.mp4")


def test_what_is_read_is_not_written_to(film: Path, here: Path) -> None:
    write_drive(here / "drives" / "a.mp4", [street(1)])
    assert_refused(invoke("data", "frames", "drives", "--out", "drives/frames"), 2, "lies in the set that is read")
    assert_refused(invoke("data", "frames", "drive.mp4", "--out", "."), 2, r"holds other files, such as drive\.mp4")
    assert files_below(here) == ["drive.mp4", "drives/a.mp4"]


def test_wrong_usage(film: Path, here: Path) -> None:
    (here / "pictures").mkdir()
    (here / "pictures" / "a.png").write_bytes(b"x")
    assert_refused(invoke("data", "frames", "pictures"), 2, "is no footage", "data check folder:pictures")
    assert_refused(invoke("data", "frames", "nothing"), 2, "names no data set")
    assert_refused(invoke("data", "frames", "drive.mp4?every=1s", "--every", "2s"), 2, "says every= already")
    assert_refused(invoke("data", "frames", "drive.mp4", "--count", "many"), 2, "no number of frames")
    assert_refused(invoke("data", "frames", "gone.mp4"), 1, r"gone\.mp4")


def test_ctrl_c_ends_it_in_order_and_leaves_nothing(here: Path, tmp_path: Path) -> None:
    write_drive(here / "long.mp4", (street(number) for number in range(1500)))
    words = [*arguments(), "data", "frames", "long.mp4?select=none", "--out", "frames"]
    env = environment(RTDA_CACHE=str(tmp_path / "own"))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
    assert process.stderr is not None
    while "choose" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and out == "" and "Traceback" not in err and "stopped" in err
    assert files_below(tmp_path / "own") == [] and not (here / "frames").exists()


def test_what_a_shell_makes_of_a_pattern_is_several_recordings(here: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_drive(here / name, drive(2))
    values = invoke("data", "frames", "a.mp4", "b.mp4", "--json").json
    assert values["footage"] == "video:a.mp4,b.mp4" and values["recordings"] == ["a.mp4", "b.mp4"]


def test_the_low_resolution_copy_of_a_camera_is_no_video_of_a_folder(here: Path) -> None:
    write_drive(here / "GX01.MP4", drive(2)).rename(here / "GL01.LRV")
    write_drive(here / "GX01.MP4", drive(2))
    assert [Path(name).name for name in invoke("data", "frames", ".", "--json").json["recordings"]] == ["GX01.MP4"]
    assert invoke("data", "frames", "video:GL01.LRV", "--json").code == 0
