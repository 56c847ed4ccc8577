"""``rtda-deploy label`` as it is typed: footage in, masks out, and the next command."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from cli.commandline import assert_refused, files_below, invoke
from conftest import write_pictures

pytest.importorskip("onnx")


@pytest.fixture()
def frames(here: Path) -> Path:
    write_pictures(here / "frames", 3)
    return here / "frames"


def test_pictures_are_labelled_and_the_next_command_is_told(here: Path, frames: Path, tiny_onnx: Path) -> None:
    outcome = invoke("label", tiny_onnx, "--footage", "frames", "--out", "labels", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["frames"], outcome.json["new_frames"], outcome.json["failed"]) == (3, 3, [])
    names = [path.stem for path in sorted(frames.iterdir())]
    written = files_below(here / "labels")
    assert {*written} >= {"masks/classes.json", *(f"masks/{name}.png" for name in names)}
    assert sum(name.startswith("confidences/") for name in written) == 3
    train = "train classmix --source DATA --target frames --set labeler=folder --set folder.path=labels/masks"
    assert train in outcome.err
    assert "rtda-deploy rank" in outcome.err
    again = invoke("label", tiny_onnx, "--footage", "frames", "--out", "labels")
    assert again.code == 0 and "0 frames labelled; 3 are there" in again.err and again.out == "labels\n"


def test_several_paths_after_one_footage_are_all_labelled(here: Path, frames: Path, tiny_onnx: Path) -> None:
    """As a shell writes out ``--footage frames/*``."""
    paths = sorted(frames.iterdir())
    outcome = invoke("label", tiny_onnx, "--footage", *paths, "--out", "labels", "--no-confidence", "--json")
    assert outcome.json["frames"] == 3
    assert not (here / "labels" / "confidences").exists()


def test_frames_are_called_as_a_training_on_the_video_calls_them(here: Path, tiny_onnx: Path) -> None:
    videos = pytest.importorskip("runtime.sources.footage.videos")
    from rtda_training.readers import open_unlabelled

    videos.write_video(here / "drive 1.mp4", count=30)
    assert invoke("label", tiny_onnx, "--footage", "drive 1.mp4", "--out", "labels").code == 0
    target = open_unlabelled("video:drive 1.mp4?hold_back=0&select=none")
    assert len(target) == 30
    names = (here / "labels" / "labelled.txt").read_text().splitlines()
    assert [target.key(index) for index in range(len(target))] == names


def test_the_labels_may_be_ranked_over(here: Path, tiny_checkpoint: Path, tiny_onnx: Path) -> None:
    pytest.importorskip("torch")
    write_pictures(here / "more", 8)
    outcome = invoke("label", tiny_onnx, "--footage", "more", "--out", "labels")
    command = next(line.split()[1:] for line in outcome.err.splitlines() if "rtda-deploy rank" in line)
    words = [str(tiny_checkpoint) if word == "OTHER" else word for word in command]
    assert invoke(*words).code == 0


def test_skipped_and_failed_are_told(here: Path, frames: Path, tiny_onnx: Path) -> None:
    (frames / "zero.png").touch()
    words = ("label", tiny_onnx, "--footage", "frames", "--out", "labels")
    assert_refused(invoke(*words), 1, "1 of 4 files are damaged, more than --skip 5% allows", "--skip 20%")
    told = invoke(*words, "--skip", "50%")
    assert told.code == 0 and "! skipped zero" in told.err
    record = json.loads((here / "labels" / "labelled.json").read_text())
    (here / "labels" / "failed").mkdir()
    (unit,) = (here / "labels" / "units").iterdir()
    unit.unlink()
    (here / "labels" / "attempts").mkdir()
    (here / "labels" / "attempts" / unit.stem).write_bytes(b"...")
    failed = invoke(*words, "--skip", "50%")
    assert failed.code == 1 and "given up" in failed.err and "--retry" in failed.err
    assert invoke(*words, "--skip", "50%", "--retry").code == 0
    assert json.loads((here / "labels" / "labelled.json").read_text()) == record


def test_a_folder_of_another_machine_is_gone_on_with_only_where_that_is_accepted(
    here: Path, frames: Path, tiny_onnx: Path
) -> None:
    words = ("label", tiny_onnx, "--footage", "frames", "--out", "labels")
    assert invoke(*words).code == 0
    plan = json.loads((here / "labels" / "plan.json").read_text())
    plan["machine"].update(host="elsewhere", confidence="0" * 16)
    (here / "labels" / "plan.json").write_text(json.dumps(plan))
    for unit in (here / "labels" / "units").iterdir():
        unit.unlink()
    assert_refused(invoke(*words), 3, "other labels than elsewhere, .*other confidences", "--mixed engine")
    assert_refused(invoke(*words, "--mixed", "decoder"), 3, "other labels than elsewhere", "--mixed engine")
    mixed = invoke(*words, "--mixed", "decoder, engine", "--json")
    assert mixed.code == 0 and [list(differs) for differs in mixed.json["mixed"].values()] == [["engine"]]
    assert "! mixed   machine" in mixed.err


def test_where_nothing_could_be_labelled_nothing_is_to_be_trained_on(here: Path, tiny_onnx: Path) -> None:
    (here / "empty.mp4").touch()
    outcome = invoke("label", tiny_onnx, "--footage", "empty.mp4", "--out", "labels", "--skip", "100%", "--json")
    assert outcome.code == 0 and outcome.json["frames"] == 0 and len(outcome.json["skipped"]) == 1
    assert "rtda-deploy train" not in outcome.err


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("--on", "mars"), 2, "--on mars is unknown"),
        (("--on", "ray", "--provider", "auto"), 2, "may choose differently on two machines"),
        (("--workers", "2"), 2, "--workers and --gpu are of --on ray"),
        (("--skip", "many"), 2, "--skip many is no share"),
        (("--as", "zip"), 2, "'zip' is no layout"),
        (("--mixed", "colour"), 2, "--mixed colour is unknown"),
        (("--out", "frames/labels"), 2, "lies in the set that is read"),
    ],
)
def test_what_makes_no_sense_is_refused(
    frames: Path, tiny_onnx: Path, words: tuple[str, ...], code: int, error: str
) -> None:
    typed = words if "--out" in words else (*words, "--out", "labels")
    assert_refused(invoke("label", tiny_onnx, "--footage", "frames", *typed), code, error, None)


def test_a_model_that_is_none_is_refused_before_anything_is_written(here: Path, frames: Path) -> None:
    (here / "model.onnx").write_bytes(b"no model")
    outcome = invoke("label", "model.onnx", "--footage", "frames", "--out", "labels")
    assert_refused(outcome, 1, "model.onnx")
    assert not (here / "labels").exists()


def test_a_checkpoint_is_refused_with_the_export_command(frames: Path, tiny_checkpoint: Path) -> None:
    outcome = invoke("label", tiny_checkpoint, "--footage", "frames", "--out", "labels")
    assert_refused(outcome, 1, r"\.pth", "rtda-deploy export")


def test_the_cluster_is_looked_for_before_the_footage(
    here: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ("label", tiny_onnx, "--footage", "nowhere", "--out", "labels", "--on", "ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert_refused(invoke(*words), 3, f"no Ray cluster at {address}", "ray start --head")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    assert_refused(invoke(*words), 2, "client's address", "ray job submit")
    assert not (here / "labels").exists()
