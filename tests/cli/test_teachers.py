"""``rtda-deploy train`` with another network as the teacher, and with a few labelled target frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli.commandline import assert_refused, invoke

pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
pytest.importorskip("onnx")


def words(data: Path, *more: str) -> list[str]:
    domains = [f"--source=folder:{data}", f"--target=folder:{data}", f"--val=folder:{data}"]
    small = ["steps=1", "size=64x64", "batch_size=2", "device=cpu", "optimizer.warmup_steps=0", *more]
    return ["train", "classmix", *domains, *(word for text in small for word in ("--set", text))]


def test_an_onnx_teaches_as_the_checkpoint_it_was_made_of(
    here: Path, tiny_checkpoint: Path, tiny_onnx: Path, tiny_data: Path
) -> None:
    from rtda_training.data.labels.files import read_mask

    labels = {}
    for path in (tiny_checkpoint, tiny_onnx):
        asked = words(tiny_data, "labeler=network", f"network-labeler.checkpoint={path}")
        outcome = invoke(*asked, "--out", path.suffix)
        assert outcome.code == 0, outcome.err
        assert f"teacher {path.name}: 19 -> 19 classes by name" in outcome.err
        labels[path.suffix] = [
            read_mask(file) for file in sorted(here.glob(f"{path.suffix}/stages/train/labels/*.png"))
        ]
    assert len(labels[".pth"]) == len(labels[".onnx"]) == 6
    same = [(one == other).mean() for one, other in zip(labels[".pth"], labels[".onnx"], strict=True)]
    assert np.mean(same) > 0.99, "float32 either way; pixels on an edge may differ"
    again = invoke("train", "--resume", "auto", "--out", ".onnx")
    assert again.code == 0, again.err


def test_labelled_target_frames_are_typed_beside_a_recipe(here: Path, tiny_data: Path, tmp_path: Path) -> None:
    asked = words(tiny_data)[:-2]
    outcome = invoke(*asked, "--set", "optimizer.warmup_steps=0", f"--labelled-target=folder:{tiny_data}", "--out=few")
    assert outcome.code == 0, outcome.err
    assert "(labels of some frames used)" in outcome.err and "labelled target: 6 frames" in outcome.err
    assert "target-labels" in Path("few/config.toml").read_text()
    refused = invoke(*asked, f"--labelled-target={tmp_path / 'none'}", "--out=none")
    assert_refused(refused, 2, "names no data set", "kind:path")


def test_the_line_of_the_model_names_labelled_frames_without_other_footage(here: Path, tiny_data: Path) -> None:
    few = f"folder:{tiny_data}?split=val"
    small = ("steps=1", "size=64x64", "batch_size=2", "device=cpu", "backbone=resnet18", "backbone_weights=")
    outcome = invoke(
        *("train", f"--source=folder:{tiny_data}", f"--labelled-target={few}", "--out=alone"),
        *(word for text in small for word in ("--set", text)),
    )
    assert outcome.code == 0, outcome.err
    assert f"-> {few} (labels of some frames used)" in outcome.err
