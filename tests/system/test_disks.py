"""A disk that is full, and one that is read-only: one error, and nothing half-written under a final name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterator, List

import pytest
from cli.commandline import assert_refused, files_below, invoke, run_command
from conftest import write_pictures
from system.conftest import tiny_training

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    os.chdir("/")  # so that the disk can be unmounted


def left(folder: Path, *endings: str) -> List[str]:
    """Files that look finished, and temporary ones."""
    return [name for name in files_below(folder) if name.endswith(endings) or ".part" in name]


def test_a_training_on_a_full_disk_is_one_error_and_no_checkpoint(small_disk: Path, tiny_data: Path) -> None:
    outcome = invoke(*tiny_training(tiny_data, small_disk / "run", "steps=1"))
    assert_refused(outcome, 1, r"cannot write .*(last|best)\.pth: No space left on device", "df -h")
    assert not left(small_disk, ".pth", "report.html")


def test_a_checkpoint_stays_what_it_was_when_the_next_does_not_fit(
    small_disk: Path, tiny_data: Path, tiny_checkpoint: Path
) -> None:
    import torch

    from rtda_deploy.errors import FileAccessError
    from rtda_training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

    whole = read_checkpoint(tiny_checkpoint)
    small = Checkpoint(whole.spec, {"w": torch.zeros(3)})
    path = write_checkpoint(small_disk / "last.pth", small)
    before = path.read_bytes()
    with pytest.raises(FileAccessError, match="No space left"):
        write_checkpoint(path, whole)
    assert path.read_bytes() == before
    assert files_below(small_disk) == ["last.pth"]


def test_an_export_to_a_full_disk_leaves_no_onnx(small_disk: Path, tiny_checkpoint: Path) -> None:
    verify = tiny_checkpoint.parent / "verify"
    outcome = invoke("export", tiny_checkpoint, "--verify", verify, "--out", small_disk)
    assert_refused(outcome, 1, r"cannot write .*last\.onnx: No space left on device", "df -h")
    assert files_below(small_disk) == []


@pytest.mark.parametrize("name", ["o.mp4", "o.webm"])
def test_a_video_on_a_full_disk_is_given_up(full_disk: Path, tmp_path: Path, tiny_onnx: Path, name: str) -> None:
    write_pictures(tmp_path / "noise", 30, (480, 640))
    outcome = invoke("run", tiny_onnx, "--camera", tmp_path / "noise", "--save", full_disk / name)
    assert outcome.code == 1 and "Traceback" not in outcome.err
    assert "No space left on device" in outcome.said["error"] and "df -h" in outcome.said["fix"]
    assert "wrote" not in outcome.out
    assert files_below(full_disk) == ["filler"]
    assert "30 frames in" in outcome.out, "the loop went on"
    assert re.search(r"^video +\d+ +0 +stopped: cannot write .*No space left", outcome.out, re.MULTILINE)


def test_masks_on_a_full_disk_are_whole_or_absent(full_disk: Path, tmp_path: Path, tiny_onnx: Path) -> None:
    import cv2

    write_pictures(tmp_path / "noise", 8, (480, 640))
    outcome = invoke("run", tiny_onnx, "--camera", tmp_path / "noise", "--masks", full_disk / "masks")
    assert outcome.code == 1 and "No space left on device" in outcome.said["error"]
    assert "8 frames in" in outcome.out, "the loop went on"
    for name in files_below(full_disk / "masks"):
        assert cv2.imread(str(full_disk / "masks" / name), cv2.IMREAD_UNCHANGED).shape == (480, 640)


def test_an_evaluation_on_a_full_disk_is_one_error(full_disk: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    outcome = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}", "--out", full_disk / "eval")
    assert_refused(outcome, 1, "No space left on device", "df -h")
    assert not left(full_disk, "report.html", ".png")


def test_a_benchmark_that_cannot_be_saved_still_is_an_error(full_disk: Path, tiny_onnx: Path) -> None:
    (full_disk / "rest").write_bytes(b"\0" * (os.statvfs(full_disk).f_bavail * os.statvfs(full_disk).f_frsize))
    outcome = invoke("bench", tiny_onnx, "--duration", "0.1", "--warmup", "0", "--save", full_disk / "times.json")
    assert_refused(outcome, 1, r"times\.json: No space left", "df -h")
    assert files_below(full_disk) == ["filler", "rest"]


def test_toytown_that_does_not_fit_is_one_error(small_disk: Path, tiny_onnx: Path) -> None:
    """In a process of its own: a memory map of a file that has no room ends the process by SIGBUS."""
    words = ["eval", tiny_onnx, "--data", "toytown:source?split=test&count=8"]
    outcome = run_command(*words, env={"RTDA_CACHE": str(small_disk)})
    assert_refused(outcome, 1, "No space left on device", "df -h")
    assert files_below(small_disk) == []


@pytest.mark.parametrize("verb", ["run", "masks", "export", "eval", "bench", "train", "verify"])
def test_a_read_only_disk_is_one_error(
    closed_disk: Path, verb: str, tiny_checkpoint: Path, tiny_onnx: Path, tiny_data: Path
) -> None:
    camera = ["--camera", "test://bars?fps=0&frames=2&size=96x64"]
    frames = tiny_checkpoint.parent / "verify"
    words = {
        "run": ["run", tiny_onnx, *camera, "--save", closed_disk / "o.mp4"],
        "masks": ["run", tiny_onnx, *camera, "--masks", closed_disk / "masks"],
        "export": ["export", tiny_checkpoint, "--verify", frames, "--out", closed_disk],
        "eval": ["eval", tiny_onnx, "--data", f"folder:{tiny_data}", "--out", closed_disk / "eval"],
        "bench": ["bench", tiny_onnx, "--duration", "0.1", "--warmup", "0", "--save", closed_disk / "t.json"],
        "train": tiny_training(tiny_data, closed_disk / "run", "steps=1"),
        "verify": ["verify", tiny_checkpoint, tiny_onnx, "--frames", frames, "--out", closed_disk],
    }[verb]
    assert_refused(invoke(*words), 1, "Read-only file system", "read-only")
