"""``rtda-deploy eval``: its figures for one model, and several models in one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli.commandline import assert_refused, invoke

from rtda_deploy.spec import ModelSpec

pytest.importorskip("torch", reason="makes a checkpoint")

DRIVABLE = ("--group", "drivable=road,sidewalk")


def other_model(path: Path) -> Path:
    """The tiny network with other weights."""
    import torch

    from rtda_training.checkpoint import Checkpoint, write_checkpoint
    from rtda_training.labels import CITYSCAPES
    from rtda_training.models import build_network

    torch.manual_seed(7)
    network = build_network("bisenet", "resnet18", "rtda", 19)
    spec = ModelSpec((64, 96), CITYSCAPES.names, CITYSCAPES.palette, provenance={"architecture": network.architecture})
    write_checkpoint(path, Checkpoint(spec=spec, weights=network.state_dict()))
    return path


def test_one_model_has_its_old_keys_and_the_new_figures(here: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    outcome = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}", *DRIVABLE, "--json", "--out", "e")
    assert outcome.code == 0, outcome.err
    values = outcome.json
    old = "model data pictures joined labelled_pixels scored_percent without_partner miou pixel_accuracy iou pixels"
    assert set(old.split()) | {"protocol", "protocol_miou", "folder"} <= set(values)
    assert 0 <= values["boundary_f1"] <= 100 and 0 <= values["calibration_error"] <= 100
    assert values["boundary_f1_by_class"]["train"] is None and values["boundary_f1_by_class"]["road"] is not None
    assert set(values["groups"]["drivable"]) == {"iou", "false_rate", "missed_rate"}
    text = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}", *DRIVABLE, "--out", "e").out
    assert f"boundary F1 {values['boundary_f1']:.2f} %" in text
    assert f"calibration error {values['calibration_error']:.2f} %" in text
    assert f"{values['groups']['drivable']['false_rate']:.2f} % of the other pixels called drivable" in text
    page = Path("e/report.html").read_text(encoding="utf-8")
    assert "boundary F1" in page and "false drivable: other pixels called drivable" in page


def test_several_models_are_held_against_the_first(
    here: Path, tiny_onnx: Path, tiny_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    models = (tiny_onnx, tiny_checkpoint, other_model(here / "other.pth"))
    data = ("--data", f"folder:{tiny_data}")
    outcome = invoke("eval", *models, *data, *DRIVABLE, "--json", "--out", "e")
    assert outcome.code == 0, outcome.err
    values = outcome.json
    first, same, other = values["models"]
    alone = invoke("eval", models[2], *data, *DRIVABLE, "--json", "--out", "alone").json
    assert {key: value for key, value in other.items() if key in alone} == {
        key: alone[key] for key in other if key in alone
    }
    assert first["gain"] is None
    assert same["gain"]["points"] == pytest.approx(0, abs=0.1) and not same["gain"]["certain"]
    assert other["gain"]["points"] == pytest.approx(other["miou"] - first["miou"], abs=0.011)
    assert other["gain"]["low"] <= other["gain"]["points"] <= other["gain"]["high"]
    assert json.loads(Path("e/results.json").read_text())["models"] == values["models"]
    text = invoke("eval", *models, *data, *DRIVABLE, "--out", "e").out
    assert f"{other['gain']['points']:+.2f}" in text and "95 % interval" in text and "false drivable" in text
    assert "neither better nor worse" in text and "Pictures of one drive" in text
    assert "other.pth" in Path("e/report.html").read_text(encoding="utf-8")


def test_models_of_other_classes_have_no_gain(here: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    from rtda_export.parity.scoring import evaluate
    from rtda_export.parity.several import compared, remarks
    from rtda_training.readers import open_labelled

    cityscapes = evaluate(tiny_onnx, open_labelled(f"folder:{tiny_data}", split="test"))
    camvid = evaluate(tiny_onnx, open_labelled(f"folder:{tiny_data}?classes=camvid", split="test"))
    values = compared([cityscapes, camvid])
    assert values["models"][1]["gain"] is None and "no gain can be told" in "\n".join(remarks(values))


def test_a_group_of_no_class_is_refused_before_anything_is_scored(here: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    refused = invoke("eval", tiny_onnx, "--data", f"folder:{tiny_data}", "--group", "drivable=raod", "--out", "e")
    assert_refused(refused, 2, "no class 'raod'", "did you mean road")
    assert not Path("e").exists()


def test_no_model_that_is_read_is_written_over(here: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    Path("e").mkdir()
    copy = Path("e/results.json")
    copy.write_bytes(tiny_onnx.read_bytes())
    refused = invoke("eval", tiny_onnx, copy, "--data", f"folder:{tiny_data}", "--out", "e")
    assert refused.code == 2 and copy.read_bytes() == tiny_onnx.read_bytes()


def test_flicker_is_measured_on_consecutive_frames(
    here: Path, tiny_onnx: Path, tiny_checkpoint: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setenv("COLUMNS", "200")
    coarse = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (128, 64), interpolation=cv2.INTER_CUBIC)
    Path("drive").mkdir()
    for place in range(7):
        cv2.imwrite(f"drive/{place:02}.png", scene[:, 2 * place : 2 * place + 96])
    asked = ("--data", f"folder:{tiny_data}", "--flicker", "folder:drive?pictures=drive", "--out", "e")
    outcome = invoke("eval", tiny_onnx, *asked, "--json")
    assert outcome.code == 0, outcome.err
    flicker = outcome.json["flicker"]
    assert flicker["pairs"] == 6 and 0 <= flicker["percent"] <= 100
    text = invoke("eval", tiny_onnx, *asked).out
    assert f"flicker {flicker['percent']:.2f} % of the pixels change class from frame to frame" in text
    assert "flicker: pixels that change class" in Path("e/report.html").read_text(encoding="utf-8")
    table = invoke("eval", tiny_onnx, tiny_checkpoint, *asked)
    assert table.code == 0 and "change class from frame to frame, 6 pairs of folder:drive" in table.out
    shutil.copytree(tiny_data, "spoilt")
    next(Path("spoilt").rglob("labels/*.png")).write_bytes(b"no label")
    few = ("--data", "folder:spoilt", "--flicker", f"folder:{tiny_data}", "--out", "f")
    assert_refused(invoke("eval", tiny_onnx, *few), 1, "pairs of frames show the same scene")  # before it scores
