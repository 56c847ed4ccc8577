"""Training on footage: the very network that the same frames as a folder of pictures give."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest
import torch
from conftest import write_data_set
from training.data.footage.drives import drive, write_drive

from rtda_training.checkpoint import read_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.data.footage.chosen import chosen_frames
from rtda_training.data.footage.written import write_frames
from rtda_training.data.labels.files import write_png
from rtda_training.data.pseudo_set import PseudoLabelledSet, label_files
from rtda_training.labels import CITYSCAPES
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.readers import open_labelled, open_unlabelled
from rtda_training.trainer import Trainer

av = pytest.importorskip("av", reason="videos are written with PyAV")
pytestmark = pytest.mark.usefixtures("cache")
SETTINGS = ["size=64x32", "batch_size=2", "device=cpu", "precision=fp32", "steps=3", "val_every=0"]


@pytest.fixture()
def footage(tmp_path: Path) -> Path:
    """Two recordings, whose natural order is not that of their paths."""
    for name in ("2.mp4", "10.mp4"):
        write_drive(tmp_path / "drives" / name, drive(3))
    return tmp_path / "drives"


def plan_on(target: str, folder: Path) -> PlanConfig:
    source = f"folder:{folder / 'source'}"
    if not (folder / "source").is_dir():
        write_data_set(folder / "source", 6)
    return load_plan("rtda-light-thin", SETTINGS, source=source, target=target, val=source)


def weights(plan: PlanConfig, folder: Path, told: List[str]) -> Dict[str, torch.Tensor]:
    Trainer(plan, folder, lambda event: told.append(event.stage)).run()
    return dict(read_checkpoint(folder / "last.pth").weights)


def test_a_run_on_footage_gives_the_weights_of_one_on_the_same_frames_as_pictures(
    footage: Path, tmp_path: Path
) -> None:
    write_frames(chosen_frames(DataAddress.parse(str(footage))), tmp_path / "frames")
    told: List[str] = []
    film = plan_on(str(footage), tmp_path)
    found = weights(film, tmp_path / "film", told)
    assert any(text.startswith(f"footage video:{footage}: 12 of 60 frames chosen") for text in told)
    pictures = weights(plan_on(f"folder:{tmp_path}/frames", tmp_path), tmp_path / "pictures", told)
    cached = weights(dataclasses.replace(film, cache=True), tmp_path / "cached", told)
    other = weights(plan_on(f"{footage}?split=all", tmp_path), tmp_path / "other", told)
    for same in (pictures, cached):
        assert found.keys() == same.keys() and all(torch.equal(found[key], same[key]) for key in found)
    assert not all(torch.equal(found[key], other[key]) for key in found), "the frames have an influence"
    assert film.target == f"video:{footage}"
    assert sorted(path.name for path in (tmp_path / "film" / "verify").iterdir())[:2] == ["0.png", "1.png"]


def test_pseudo_labels_and_translations_find_the_frames_by_their_names(footage: Path, tmp_path: Path) -> None:
    found = open_unlabelled(f"{footage}?hold_back=0")
    for index in range(len(found)):
        write_png(tmp_path / "labels" / f"{found.key(index)}.png", np.full((64, 96), index, np.uint8))
        write_png(tmp_path / "translated" / f"{found.key(index)}.png", 255 - found.frame(index))
    labelled = PseudoLabelledSet(found, label_files(tmp_path / "labels", found), CITYSCAPES)
    translated = open_unlabelled(f"{footage}?hold_back=0&pictures={tmp_path}/translated")
    for index in range(len(found)):
        frame, label = labelled.pair(index)
        assert (label == index).all() and np.array_equal(translated.frame(index), 255 - frame)
    assert found.key(0) == translated.key(0) == "10/000000.000s"
    assert translated.notes == found.notes


def test_labels_beside_written_frames_make_a_labelled_set(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames"
    write_frames(chosen_frames(DataAddress.parse(str(footage))), out)
    for split in ("train", "val"):
        found = open_unlabelled(f"folder:{out}?split={split}")
        for index in range(len(found)):
            write_png(out / split / "labels" / f"{found.key(index)}.png", np.zeros((64, 96), np.uint8))
    assert len(open_labelled(f"folder:{out}", split="train")) + len(open_labelled(f"folder:{out}", split="test")) == 12
    assert write_frames(chosen_frames(DataAddress.parse(str(footage))), out) == 0
