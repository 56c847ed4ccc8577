"""Collecting under kill -9 and on a full disk: a whole data set at any moment, and a run that goes on."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, List

import numpy as np
import pytest
from cli.commandline import arguments, environment, files_below, invoke
from runtime.models import write_model
from system.conftest import Process

pytestmark = pytest.mark.system

KILLS = 5
LIMITS = "minute=100000,gap=0s,free=0,control=10%"


@pytest.fixture(autouse=True)
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a.onnx")
    yield
    os.chdir("/")  # so that the disk can be unmounted


def write_noise(folder: Path, count: int, seed: int) -> Path:
    """Pictures of 160x120 that a JPEG does not make small, each unlike the others."""
    import cv2

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = cv2.resize(rng.integers(0, 256, (8, 9, 3), np.uint8), (160, 120), interpolation=cv2.INTER_NEAREST)
        noise = rng.integers(0, 256, (120, 160, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), cv2.addWeighted(coarse, 0.5, noise, 0.5, 0))
    return folder


def pictures_of(folder: Path) -> List[str]:
    return sorted(path.stem for path in (folder / "images").glob("*.jpg"))


def check_whole(folder: Path) -> None:
    """What training reads: every picture that is there is whole, and has its mask."""
    from rtda_training.readers import open_labelled

    if pictures_of(folder):
        labelled = open_labelled(f"folder:{folder}")
        for index in range(len(labelled)):
            frame, label = labelled.pair(index)
            assert frame.shape[:2] == label.shape == (120, 160)


def check_in_order(folder: Path) -> None:
    """After a start and an end: no temporaries, no orphans, a line for each picture."""
    names = pictures_of(folder)
    content = (folder / "frames.jsonl").read_text(encoding="utf-8")
    assert not content or content.endswith("\n")
    assert sorted(json.loads(line)["id"] for line in content.splitlines()) == names
    expected = [f"{part}/{name}{end}" for part, end in _PARTS for name in names]
    assert files_below(folder) == sorted(["classes.json", "frames.jsonl", *expected])


_PARTS = (("confidence", ".png"), ("images", ".jpg"), ("labels", ".png"))


def test_a_collection_that_is_killed_at_any_moment_is_whole_and_goes_on(
    tmp_path: Path, start: Callable[..., Process]
) -> None:
    chance, folder = random.Random(4), tmp_path / "hard"
    words = ["run", "a.onnx", "--collect", "hard", "--collect-limit", f"{LIMITS},disk=250kB", "--camera"]
    for number in range(KILLS):
        write_noise(tmp_path / f"noise{number}", 60, number)
        before = set(pictures_of(folder))
        process = start(*words, f"noise{number}")
        process.wait_until(lambda: bool(set(pictures_of(folder)) - before), "a new frame")  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.3))
        process.send(signal.SIGKILL)
        process.end()
        check_whole(folder)
    assert invoke(*words, "test://bars?fps=0&frames=2&size=160x120").code == 0
    check_whole(folder)
    check_in_order(folder)
    assert 2 <= len(pictures_of(folder)) < 10, "frames gave way to others"


def test_a_disk_that_refuses_stops_the_collecting_with_one_warning_and_the_run_goes_on(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk: 8 KiB a file, and a picture has more."""
    write_noise(tmp_path / "noise", 40, 0)
    words = ["run", "a.onnx", "--camera", "noise", "--collect", "hard", "--collect-limit", LIMITS, "--json"]
    script = f"ulimit -f 8; exec {shlex.join([*arguments(), *words])}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    told = summary["sinks"]["collect"]
    assert summary["frames"] == 40 and told["written"] + told["dropped"] == 40
    assert "cannot write" in told["stopped"] and "File too large" in told["stopped"] and told["kept"] == 0
    assert done.stderr.count("collecting stopped") == 1 and "Traceback" not in done.stderr
    check_in_order(tmp_path / "hard")


def test_a_full_disk_takes_nothing_and_the_run_goes_on(
    tmp_path: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_noise(tmp_path / "noise", 40, 0)
    state = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"\0" * (state.f_bavail * state.f_frsize - 60_000))
    words = ["run", "a.onnx", "--camera", "noise", "--collect", small_disk / "hard", "--collect-limit", LIMITS]
    outcome = invoke(*words, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["frames"] == 40 and outcome.json["sinks"]["collect"]["kept"] == 0
    assert caplog.text.count("nothing can be collected now: the disk is as full as it may be") == 1
    check_in_order(small_disk / "hard")


def test_on_a_small_disk_better_frames_take_the_place_of_others(tmp_path: Path, small_disk: Path) -> None:
    words = ["run", "a.onnx", "--collect", small_disk / "hard", "--collect-limit", LIMITS, "--json", "--camera"]
    kept, there = 0, 0
    for number in range(100):  # on a busy machine the collector, which gives way, sees few of the frames
        write_noise(tmp_path / f"noise{number}", 80, number)
        outcome = invoke(*words, f"noise{number}")
        assert outcome.code == 0 and "cannot write" not in outcome.err, outcome.err
        kept += outcome.json["sinks"]["collect"]["kept"]
        check_in_order(small_disk / "hard")
        there = len(pictures_of(small_disk / "hard"))
        if 5 < there < kept - 5:
            break
    assert 5 < there < kept - 5


def test_a_disk_that_others_filled_keeps_its_floor(tmp_path: Path, small_disk: Path) -> None:
    write_noise(tmp_path / "noise", 40, 0)
    limits = LIMITS.replace("free=0", "free=500kB")
    outcome = invoke(
        "run", "a.onnx", "--camera", "noise", "--collect", small_disk / "hard", "--collect-limit", limits, "--json"
    )
    assert outcome.code == 0 and outcome.json["sinks"]["collect"]["stopped"] is None
    state = os.statvfs(small_disk)
    assert outcome.json["sinks"]["collect"]["frames"] > 1
    assert state.f_bavail * state.f_frsize > 400_000, "pages of the file system round up"
    check_in_order(small_disk / "hard")


@pytest.mark.parametrize("place", ["hard", ""])
def test_a_read_only_disk_is_one_error_before_the_run(closed_disk: Path, place: str) -> None:
    outcome = invoke("run", "a.onnx", "--camera", "test://bars?frames=2", "--collect", closed_disk / place)
    assert outcome.code == 1 and "Read-only file system" in outcome.said["error"] and outcome.said["fix"]
