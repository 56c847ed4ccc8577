"""``rtda-deploy adapt``: what it prints, and that the commands it ends with work as printed."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli.commandline import assert_refused, invoke
from conftest import write_pictures

pytest.importorskip("torch")
pytest.importorskip("onnx")

from rtda_training.checkpoint import read_checkpoint, write_checkpoint

SETTINGS = ["--set", "batch_size=2", "--set", "device=cpu", "--set", "precision=fp32"]


def test_it_ends_with_commands_that_work_as_printed(
    here: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_pictures(here / "frames", 10)
    model = read_checkpoint(tiny_checkpoint)
    spec = model.spec.replace(provenance={**model.spec.provenance, "batch_norm": "fixed"})
    write_checkpoint(here / "model.pth", dataclasses.replace(model, spec=spec))
    words = ["adapt", "model.pth", "--footage", "folder:frames", "--norms-only", "--out", "run", *SETTINGS]
    outcome = invoke(*words)
    assert outcome.code == 0, outcome.err
    assert "batch norms 50 % target" in outcome.out and "best.pth" in outcome.out
    assert "no calibration card" in outcome.err and "MODEL_CARD.md" in outcome.err
    assert (
        'norms not counted: batch norms stood still in training (batch_norm = "fixed"): given and 4 more' in outcome.err
    )
    shown = re.findall(r"rtda-deploy ((?:export|run) .*)", outcome.err)
    assert [command.split()[0] for command in shown] == ["export", "export", "run"]
    for command in shown:
        done = invoke(*shlex.split(command))
        assert done.code == 0, f"{command}: {done.err}"
    again = invoke(*words)
    assert_refused(again, 2, "holds a run", "adapt --resume auto --out run")
    resumed = invoke("adapt", "--resume", "auto", "--out", "run", "--json")
    assert resumed.code == 0 and resumed.json["best"] == "run/best.pth", resumed.err
    other = invoke("adapt", "--resume", "auto", "--out", "run", "--footage", "folder:other")
    assert_refused(other, 1, "footage folder:other, not folder:frames")
    assert_refused(invoke("adapt", "other.pth", "--resume", "auto", "--out", "run"), 1, "other.pth, not /")
    assert resumed.json["better"] == (resumed.json["chosen"] != "given")


def test_where_the_model_stays_nothing_is_proposed_to_be_exported(
    here: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own masks as labels: no other network has as much mIoU on them."""
    import cv2

    monkeypatch.setenv("COLUMNS", "400")
    frames = write_pictures(here / "set" / "images", 9)
    shutil.copyfile(tiny_checkpoint, here / "model.pth")
    assert invoke("export", "model.pth", "--to", "onnx", "--verify", "set/images").code == 0
    ran = invoke("run", "model.onnx", "--camera", frames, "--masks", "set/labels", "--provider", "cpu")
    assert ran.code == 0, ran.err
    names = read_checkpoint(tiny_checkpoint).spec.class_names
    (here / "set" / "classes.json").write_text(json.dumps({"names": list(names)}))
    words = ["adapt", "model.pth", "--footage", "folder:set", "--norms-only", *SETTINGS]
    own = invoke(*words, "--check", "folder:set", "--out", "run")
    assert own.code == 0 and "best.pth is the model that was given" in own.out, own.err
    assert "next    rtda-deploy data cvat folder:set   (correct the masks, then adapt again)" in own.err
    for path in (here / "set" / "labels").glob("*.png"):  # as if a person had saved them
        assert cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    labelled = invoke(*words, "--check", "folder:set", "--out", "run 2")
    assert labelled.code == 0 and "keep    model.pth: best.pth is the same network" in labelled.err, labelled.err
    again = "rtda-deploy adapt model.pth --footage folder:set --check folder:set   (trains, too)"
    assert labelled.err.rstrip().endswith(again) and "rtda-deploy export" not in labelled.err


def test_bad_requests_are_refused_with_the_fix(here: Path, tiny_checkpoint: Path, tiny_onnx: Path) -> None:
    write_pictures(here / "still", 1)
    footage = ["--footage", "folder:still"]
    assert_refused(invoke("adapt", *footage), 2, "no model was named")
    assert_refused(invoke("adapt", tiny_checkpoint), 2, "no footage was named")
    assert_refused(
        invoke("adapt", tiny_checkpoint, *footage, "--set", "target=folder:other"), 2, "what --footage names"
    )
    assert_refused(invoke("adapt", tiny_checkpoint, *footage, "--set", "rank=true"), 2, "adapt has no setting rank")
    assert_refused(invoke("adapt", tiny_onnx, *footage), 2, "cannot be adapted", ".pth that it was exported from")
    assert_refused(invoke("adapt", tiny_checkpoint, *footage), 1, "one scene in 1 frame", "at least 8")
    assert_refused(invoke("adapt", "--resume", "auto", "--out", "nowhere"), 1, "no adaptation to resume")
