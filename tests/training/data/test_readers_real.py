"""Readers on the real files of RTDA_DATA: Cityscapes' originals, CamVid, CARLA in three flavours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rtda_deploy.errors import DataError
from rtda_training.data.index import index_of
from rtda_training.data.labels.files import read_mask
from rtda_training.readers import open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")

DATA = Path(os.environ.get("RTDA_DATA") or "/nowhere")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="RTDA_DATA names no folder of real data")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))


def test_cityscapes_label_ids_become_train_ids_as_their_own_table_says():

    table = json.loads((DATA / "cityscapes_samples/classes.json").read_text())["label_id_to_train_id"]
    data = open_labelled(f"cityscapes:{DATA}/cityscapes_samples")
    assert [data.key(index) for index in range(len(data))] == [
        f"aachen/aachen_{number:06d}_000019" for number in range(4)
    ]
    for index in range(len(data)):
        frame, label = data.pair(index)
        assert frame.shape == (1024, 2048, 3)
        path = data.name(index).replace("leftImg8bit/", "gtFine/").replace("leftImg8bit.png", "gtFine_labelIds.png")
        raw = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        for number in np.unique(raw):
            assert (label[raw == number] == table.get(str(number), 255)).all(), number


def test_cityscapes_without_one_label_names_it_and_a_list_leaves_it_out(tmp_path):
    root = DATA / "cityscapes_samples"
    with pytest.raises(DataError, match=r"1 of 2 pictures .*frankfurt_000001_058914"):
        open_labelled(f"cityscapes:{root}?split=val")
    (tmp_path / "val.txt").write_text(
        "# ADVENT's way of writing\n\nfrankfurt/frankfurt_000000_000576_leftImg8bit.png\n"
    )
    data = open_labelled(f"cityscapes:{root}?split=val&list={tmp_path}/val.txt")
    assert len(data) == 1 and data.pair(0)[1].shape == (1024, 2048)


def test_cityscapes_is_measured_on_val_because_test_has_no_labels(tmp_path):
    root = tmp_path / "city"
    for folder in ("leftImg8bit/val", "gtFine/val"):
        (root / folder).mkdir(parents=True)
        for path in (DATA / "cityscapes_samples" / folder).rglob("*000576*"):
            (root / folder / path.parent.name).mkdir(exist_ok=True)
            (root / folder / path.parent.name / path.name).symlink_to(path)
    data = open_labelled(f"cityscapes:{root}", split="test")  # what eval asks for where no split was typed
    assert len(data) == 1 and data.address.split == "val"


def test_cityscapes_train_ids_at_half_size_are_a_folder_with_splits_inside():
    data = open_labelled(f"folder:{DATA}/cityscapes_half?split=val")
    full = open_labelled(f"cityscapes:{DATA}/cityscapes_samples")
    assert len(data) == 2 and len(open_labelled(f"folder:{DATA}/cityscapes_half")) == 8
    half = open_labelled(f"folder:{DATA}/cityscapes_half").label(0)
    assert (half == full.label(0)[::2, ::2]).mean() > 0.98  # nearest, whichever corner it takes


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid_is_read_whole(split, count):
    data = open_labelled(f"camvid:{DATA}/camvid?split={split}")
    assert len(data) == count
    index = index_of(data)
    shares = dict(zip(data.classes.names, index.frequencies))
    # a street: road and building about a quarter each, poles about 1 %; a swapped pair of ids would break one of these
    assert 0.2 < shares["Road"] < 0.4 and 0.15 < shares["Building"] < 0.35 and 0.05 < shares["Sky"] < 0.25
    assert shares["Car"] > shares["Pedestrian"] and shares["Tree"] > shares["SignSymbol"]
    assert 0.001 < shares["Bicyclist"] < 0.05 and 0.002 < shares["Pole"] < 0.02
    assert (index.sizes == (360, 480)).all()
    assert (index.pixels.sum(axis=1) + index.ignored == 360 * 480).all()


def test_camvids_lists_name_pictures_and_labels():
    for name, count in (("day_train", 305), ("dusk_train", 62), ("day_test", 171), ("dusk_test", 62)):
        data = open_labelled(f"camvid:{DATA}/camvid?list=lists/{name}.txt")
        assert len(data) == count, name
        data.pair(count - 1)


def test_cityscapes_and_camvid_meet_in_camvids_classes():
    data = open_labelled(f"cityscapes:{DATA}/cityscapes_samples?classes=camvid")
    own = open_labelled(f"cityscapes:{DATA}/cityscapes_samples")
    assert data.classes.num_classes == 11
    joined, label = data.label(0), own.label(0)
    assert set(np.unique(joined[label == 0])) == {3}  # road -> Road
    assert set(np.unique(joined[(label == 12) | (label == 18)])) == {10}  # rider, bicycle -> Bicyclist
    assert set(np.unique(joined[label == 9])) <= {255}  # terrain is ignored


CARLA = {
    "carlascapes": ("carlascapes", 4, "sky"),
    "carla095?version=0.9.5": ("carla095", 6, "car"),
    "carla082?version=0.8": ("carla082", 4, "car"),
    "carla082_lyft_original": ("carla082", 3, "car"),
}


@pytest.mark.parametrize("address", CARLA)
def test_carlas_ids_follow_the_table_of_their_version(address):
    source, count, holds = CARLA[address]
    rows = json.loads((DATA / "synthetic/classes.json").read_text())[source]["classes"]
    table = np.full(256, 254, np.uint8)
    for row in rows:
        table[row["id"]] = row["cityscapes_train_id"]
    data = open_labelled(f"carla:{DATA}/synthetic/{address}")
    assert len(data) == count
    for index in range(count):
        label = data.pair(index)[1]
        path = data.name(index).replace("CameraRGB", "CameraSeg").replace("images", "labels").replace(".jpg", ".png")
        raw = read_mask(Path(path))
        assert (label == table[raw if raw.ndim == 2 else raw[..., 0]]).all()
    names = [data.classes.names[value] for value in np.unique(data.label(0)) if value != 255]
    assert {"road", "building", holds} <= set(names)


def test_carlas_old_ids_are_not_taken_for_the_new_ones():
    data = open_labelled(f"carla:{DATA}/synthetic/carla095")
    with pytest.raises(DataError, match=r"13 ids of CARLA before") as caught:
        data.label(0)
    assert "version=0.9.5" in caught.value.hint


def test_carlas_new_ids_are_not_taken_for_the_old_ones():
    data = open_labelled(f"carla:{DATA}/synthetic/carlascapes?version=0.9.5")
    with pytest.raises(DataError, match=r"outside the 13 ids") as caught:
        data.label(0)
    assert "version=0.9.14" in caught.value.hint


def test_gta5s_frames_are_a_target_without_labels():
    data = open_unlabelled(f"folder:{DATA}/gta5_samples/half_957x526")
    assert len(data) == 11 and data.frame(0).shape == (526, 957, 3)
