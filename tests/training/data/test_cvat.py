"""Labels to CVAT's "Segmentation mask 1.1" and back."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np
import pytest

from rtda_deploy.errors import DataError, FileAccessError
from rtda_training.data.cvat import apply_corrections, write_cvat
from rtda_training.data.cvat_label_map import cvat_labels
from rtda_training.data.readers.folder import FolderPictures
from rtda_training.readers import open_labelled

NAMES = ("road", "sky", "car")
PALETTE = [[128, 64, 128], [0, 0, 0], [128, 64, 128]]  # black is CVAT's background, and two classes share a colour


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    """Three pictures of 4x6 with labels of the three classes and of none."""
    folder = tmp_path / "set"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.json").write_text(json.dumps({"names": NAMES, "palette": PALETTE}), encoding="utf-8")
    for number in range(3):
        cv2.imwrite(str(folder / "images" / f"p{number}.jpg"), np.full((4, 6, 3), 40 * number, np.uint8))
        cv2.imwrite(str(folder / "labels" / f"p{number}.png"), label(number))
    return folder


def label(number: int) -> np.ndarray:
    values = np.array([0, 1, 2, 255], np.uint8)
    return values[np.random.default_rng(number).integers(0, 4, (4, 6))]


def contents(path: Path) -> Dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def picture(content: bytes) -> np.ndarray:
    """RGB."""
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))[..., ::-1]


def exported(path: Path, label_map: str, masks: Dict[str, np.ndarray], **more: bytes) -> Path:
    """An archive as CVAT makes it; masks in RGB, or of one channel."""
    with zipfile.ZipFile(path, "w") as archive:
        if label_map:
            archive.writestr("labelmap.txt", label_map)
        for name, mask in masks.items():
            stored = mask[..., ::-1] if mask.ndim == 3 else mask
            archive.writestr(f"SegmentationClass/{name}.png", cv2.imencode(".png", stored)[1].tobytes())
            archive.writestr(f"SegmentationObject/{name}.png", b"objects, which nobody needs")
        for name, content in more.items():
            archive.writestr(name, content)
    return path


def test_the_archive_is_of_the_form_that_cvat_reads(data: Path, tmp_path: Path) -> None:
    assert write_cvat(f"folder:{data}", tmp_path / "a.zip")[0] == 3
    found = contents(tmp_path / "a.zip")
    masks = [f"SegmentationClass/p{number}.png" for number in range(3)]
    assert list(found) == ["labelmap.txt", "ImageSets/Segmentation/default.txt", *masks]
    assert found["ImageSets/Segmentation/default.txt"] == b"p0\np1\np2\n"
    lines = found["labelmap.txt"].decode().splitlines()
    assert lines[:3] == ["# label:color_rgb:parts:actions", "background:0,0,0::", "road:128,64,128::"]
    colours = [tuple(int(part) for part in line.split(":")[1].split(",")) for line in lines[1:]]
    assert [line.split(":")[0] for line in lines[1:]] == ["background", *NAMES] and len(set(colours)) == 4
    for number in range(3):
        seen = picture(found[masks[number]])
        expected = np.array([*colours[1:], colours[0]])[np.minimum(label(number), 3)]
        np.testing.assert_array_equal(seen, expected)


def test_the_labels_of_the_task_have_the_colours_of_the_archive(data: Path, tmp_path: Path) -> None:
    _, classes = write_cvat(f"folder:{data}", tmp_path / "a.zip")
    labels = json.loads(cvat_labels(classes))
    lines = contents(tmp_path / "a.zip")["labelmap.txt"].decode().splitlines()[2:]
    told = {line.split(":")[0]: "#" + bytes(map(int, line.split(":")[1].split(","))).hex() for line in lines}
    assert {entry["name"]: entry["color"] for entry in labels} == told


def test_what_was_written_comes_back_as_it_was(data: Path, tmp_path: Path) -> None:
    write_cvat(f"folder:{data}", tmp_path / "a.zip")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    found = apply_corrections(f"folder:{data}", tmp_path / "a.zip")
    assert (found.changed, found.same, found.unknown, found.pixels) == (0, 3, [], 0.0)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


_OWN_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:1,2,3::\nsky:4,5,6::\nroad:7,8,9::\n"
_OWN_COLOURS = np.array([[7, 8, 9], [4, 5, 6], [1, 2, 3], [0, 0, 0]], np.uint8)  # road, sky, car, none


@pytest.mark.parametrize("one_channel", [False, True])
def test_corrected_masks_are_the_labels_from_then_on(data: Path, tmp_path: Path, one_channel: bool) -> None:
    wanted = label(1).copy()
    wanted[0] = 2
    coded = np.minimum(wanted, 3)
    mask = np.array([3, 2, 1, 0], np.uint8)[coded] if one_channel else _OWN_COLOURS[coded]
    export = exported(tmp_path / "e.zip", _OWN_MAP, {"p1": mask, "elsewhere": mask})
    found = apply_corrections(f"folder:{data}", export)
    assert (found.changed, found.same, found.unknown) == (1, 0, ["elsewhere"])
    assert found.pixels == (wanted != label(1)).mean()
    labelled = open_labelled(f"folder:{data}")
    np.testing.assert_array_equal(labelled.label(1), wanted)
    np.testing.assert_array_equal(labelled.label(0), label(0))


def test_an_export_with_pictures_is_a_folder_of_its_own_once_its_colours_are_said(data: Path, tmp_path: Path) -> None:
    export, folder = tmp_path / "e.zip", tmp_path / "back"
    exported(export, _OWN_MAP, {f"p{number}": _OWN_COLOURS[np.minimum(label(number), 3)] for number in range(3)})
    with zipfile.ZipFile(export) as archive:
        archive.extractall(folder)
    (data / "images").rename(folder / "JPEGImages")
    colours = {",".join(map(str, colour)): name for colour, name in zip(_OWN_COLOURS.tolist(), [*NAMES, ""])}
    (folder / "classes.json").write_text(json.dumps({"names": NAMES, "colors": colours}), encoding="utf-8")
    labelled = open_labelled(f"folder:{folder}")
    for number in range(3):
        np.testing.assert_array_equal(labelled.label(number), label(number))


@pytest.mark.parametrize(
    ("label_map", "mask", "name", "said"),
    [
        (_OWN_MAP, _OWN_COLOURS[np.zeros((4, 6), int)] + 50, "p0", "has (57, 58, 59), which its label map does not"),
        (_OWN_MAP, np.full((4, 6), 9, np.uint8), "p0", "has (9,), which its label map does not declare"),
        (_OWN_MAP, np.zeros((5, 6, 3), np.uint8), "p0", "is 6x5, its picture 6x4"),
        (_OWN_MAP, np.zeros((4, 6, 3), np.uint8), "q0", "none of them has the name of a picture"),
        (
            _OWN_MAP.replace("4,5,6", "1,2,3"),
            _OWN_COLOURS[np.full((4, 6), 2)],
            "p0",
            "car and sky have one colour, (1, 2",
        ),
        (_OWN_MAP.replace("car", "lorry"), np.zeros((4, 6, 3), np.uint8), "p0", "the label 'lorry', which is no class"),
        (_OWN_MAP.replace("1,2,3", "0,256,0"), _OWN_COLOURS[np.full((4, 6), 2)], "p0", "no archive that CVAT exported"),
        (_OWN_MAP + "#" * (1 << 20), _OWN_COLOURS[np.full((4, 6), 2)], "p0", "labelmap.txt has 10"),
        ("", np.zeros((4, 6, 3), np.uint8), "p0", "has no labelmap.txt"),
        ("road\n", np.zeros((4, 6, 3), np.uint8), "p0", "is no archive that CVAT exported"),
    ],
)
def test_an_export_that_does_not_fit_changes_nothing(
    data: Path, tmp_path: Path, label_map: str, mask: np.ndarray, name: str, said: str
) -> None:
    good = _OWN_COLOURS[np.zeros((4, 6), int)]
    masks = {name: mask} if name == "q0" else {"p1": good, name: mask}
    with pytest.raises(DataError) as caught:
        apply_corrections(f"folder:{data}", exported(tmp_path / "e.zip", label_map, masks))
    assert said in caught.value.message and caught.value.hint
    np.testing.assert_array_equal(open_labelled(f"folder:{data}").label(1), label(1))


def test_pictures_are_decoded_once_and_a_mask_that_is_there_twice_counts_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: List[int] = []
    whole = FolderPictures.frame
    monkeypatch.setattr(FolderPictures, "frame", lambda self, index: read.append(index) or whole(self, index))
    export = exported(tmp_path / "e.zip", _OWN_MAP, {"p1": _OWN_COLOURS[np.full((4, 6), 2)]})
    with zipfile.ZipFile(export, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("SegmentationClass/p1.png", archive.read("SegmentationClass/p1.png"))
    found = apply_corrections(f"folder:{data}", export)
    assert (found.changed, found.same, read) == (1, 0, [1])


def test_what_is_no_archive_is_refused(data: Path, tmp_path: Path) -> None:
    for content in (b"", b"PK no archive", b"\0" * 100):
        (tmp_path / "e.zip").write_bytes(content)
        with pytest.raises(DataError, match="no archive that CVAT exported"):
            apply_corrections(f"folder:{data}", tmp_path / "e.zip")
    with pytest.raises(FileAccessError, match="cannot read"):
        apply_corrections(f"folder:{data}", tmp_path / "nothing.zip")


def test_a_damaged_archive_is_refused(data: Path, tmp_path: Path) -> None:
    export = exported(tmp_path / "e.zip", _OWN_MAP, {"p0": _OWN_COLOURS[np.zeros((4, 6), int)]})
    whole = export.read_bytes()
    place = whole.index(b"\x89PNG") + 20
    export.write_bytes(whole[:place] + b"xxxx" + whole[place + 4 :])
    with pytest.raises(DataError):
        apply_corrections(f"folder:{data}", export)
    np.testing.assert_array_equal(open_labelled(f"folder:{data}").label(0), label(0))


def _changed(data: Path, values: Dict[str, Any]) -> None:
    (data / "classes.json").write_text(json.dumps(values), encoding="utf-8")


def test_labels_in_other_ids_are_written_to_cvat_and_not_back(data: Path, tmp_path: Path) -> None:
    _changed(data, {"ids": {"0": "sky", "1": "road", "2": "car"}, "ignore": [255]})
    write_cvat(f"folder:{data}", tmp_path / "a.zip")
    _changed(data, {"ids": {"0": "sky", "2": "road", "1": "car"}, "names": ["sky", "road", "car"], "ignore": [255]})
    with pytest.raises(DataError, match="hold other values than 0, 1, 2") as caught:
        apply_corrections(f"folder:{data}", tmp_path / "a.zip")
    assert '"colors"' in caught.value.hint


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["road", "sky", "a:b"], "cannot hold the name 'a:b'"),
        (["road", "sky", " #1"], "cannot hold the name ' #1'"),
        (["road", "sky", "a\u2028b"], "cannot hold the name 'a"),
        (["road", "sky", "background"], "one background"),
    ],
)
def test_names_that_cvat_cannot_hold_are_refused(data: Path, tmp_path: Path, names: Any, said: str) -> None:
    _changed(data, {"names": names, "palette": PALETTE})
    with pytest.raises(DataError) as caught:
        write_cvat(f"folder:{data}", tmp_path / "a.zip")
    assert said in caught.value.message + caught.value.why and not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    ("name", "why"), [(b"new\nline.jpg", "one name a line"), (b"no text \xff.jpg", "UTF-8"), (b"p0.png", "another")]
)
def test_pictures_whose_names_cvat_cannot_hold_are_refused(data: Path, tmp_path: Path, name: bytes, why: str) -> None:
    for part, file in (("images", name), ("labels", name.rpartition(b".")[0] + b".png")):
        path = data / part / os.fsdecode(file)
        path.write_bytes((data / part / ("p0.jpg" if part == "images" else "p0.png")).read_bytes())
    with pytest.raises(DataError, match="CVAT cannot hold the picture") as caught:
        write_cvat(f"folder:{data}", tmp_path / "a.zip")
    assert why in caught.value.why and not (tmp_path / "a.zip").exists()


def test_names_with_spaces_and_of_any_script_go_there_and_back(data: Path, tmp_path: Path) -> None:
    _changed(data, {"names": ["traffic light", "a#b", "straße 道路"], "palette": PALETTE})
    for part in ("images", "labels"):
        (path,) = (data / part).glob("p0.*")
        path.rename(path.with_name(f"ü 図 {path.name}"))
    write_cvat(f"folder:{data}", tmp_path / "a.zip")
    assert apply_corrections(f"folder:{data}", tmp_path / "a.zip").same == 3


def test_as_many_classes_as_a_mask_holds_go_there_and_back(data: Path, tmp_path: Path) -> None:
    _changed(data, {"names": [f"class {number}" for number in range(254)], "palette": [[9, 9, 9]] * 254})
    for number in range(3):
        values = np.random.default_rng(number).permutation(256)[:24].reshape(4, 6)
        cv2.imwrite(str(data / "labels" / f"p{number}.png"), np.where(values > 253, 255, values).astype(np.uint8))
    write_cvat(f"folder:{data}", tmp_path / "a.zip")
    assert apply_corrections(f"folder:{data}", tmp_path / "a.zip").same == 3


def test_a_class_that_is_called_background_is_cvats_own(data: Path, tmp_path: Path) -> None:
    _changed(data, {"names": ["road", "Background", "car"], "palette": PALETTE})
    for number in range(3):
        cv2.imwrite(str(data / "labels" / f"p{number}.png"), label(number) % 3)
    write_cvat(f"folder:{data}", tmp_path / "a.zip")
    lines = contents(tmp_path / "a.zip")["labelmap.txt"].decode().splitlines()
    assert "Background:0,0,0::" in lines and len(lines) == 4
    assert apply_corrections(f"folder:{data}", tmp_path / "a.zip").same == 3


def test_the_same_set_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_cvat(f"folder:{data}", tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
