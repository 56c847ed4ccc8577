"""The index of a set: counted once, kept, and counted again when a label changes."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
from turned_files import turned

from rtda_deploy.errors import DataError
from rtda_training.data.index import DataIndex, in_order, index_of, index_path
from rtda_training.data.survey import survey
from rtda_training.readers import open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture()
def folder(tmp_path):
    root = tmp_path / "set"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for number in range(5):
        label = np.full((20, 30), 255, np.uint8)
        label[: number + 1] = number
        assert cv2.imwrite(str(root / "images" / f"{number}.png"), np.zeros((20, 30, 3), np.uint8))
        assert cv2.imwrite(str(root / "labels" / f"{number}.png"), label)
    return root


def test_an_index_counts_every_pixel_in_the_sets_order(folder):
    told = []
    data = open_labelled(f"folder:{folder}")
    index = index_of(data, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]
    assert index.names == tuple(data.name(place) for place in range(5)) and index.class_names == data.classes.names
    assert index.pixels.dtype == np.int64 and index.pixels.shape == (5, 19)
    for number in range(5):
        assert index.pixels[number, number] == 30 * (number + 1) == index.pixels[number].sum()
    assert (index.ignored == 600 - index.pixels.sum(axis=1)).all() and (index.sizes == (20, 30)).all()
    assert index.frequencies.dtype == np.float64 and index.frequencies.shape == (19,)
    assert index.frequencies[:5] == pytest.approx(np.arange(1, 6) / 15) and index.frequencies.sum() == pytest.approx(1)


@pytest.mark.parametrize("workers", [1, 4])
def test_an_index_is_counted_once_and_again_when_a_label_changes(folder, workers):
    told = []

    def count(address=f"folder:{folder}"):
        told.clear()
        return index_of(open_labelled(address), progress=lambda *at: told.append(at), workers=workers)

    first = count()
    assert len(told) == 5
    again = count()
    assert told == [] and (again.pixels == first.pixels).all() and again.names == first.names
    path = folder / "labels" / "2.png"
    assert cv2.imwrite(str(path), np.full((20, 30), 7, np.uint8))
    os.utime(path, ns=(1, 1))
    assert count().pixels[2, 7] == 600 and len(told) == 5
    assert count(f"folder:{folder}?classes=camvid").pixels.shape == (5, 11) and len(told) == 5
    (folder / "l.txt").write_text("4\n0\n")
    assert count(f"folder:{folder}?list=l.txt").pixels[0, 4] == 150


def test_a_broken_index_is_counted_again_and_a_closed_cache_costs_only_time(folder, monkeypatch):
    data = open_labelled(f"folder:{folder}")
    index_of(data)
    index_path(data).write_bytes(b"PK no archive")
    assert index_of(data).pixels.sum() == 450
    assert DataIndex.load(index_path(data)) is not None
    monkeypatch.setenv("RTDA_CACHE", "/proc/rtda")
    assert index_of(data).pixels.sum() == 450


def test_a_bad_label_stops_the_counting_with_its_name(folder):
    assert cv2.imwrite(str(folder / "labels" / "3.png"), np.full((20, 30), 77, np.uint8))
    with pytest.raises(DataError, match=r"3\.png.*77"):
        index_of(open_labelled(f"folder:{folder}"))


def test_toytown_has_an_index_too():
    data = open_labelled("toytown:source?split=val&count=3&size=64x32")
    index = index_of(data)
    assert index.pixels.shape == (3, 19) and (index.pixels.sum(axis=1) + index.ignored == 64 * 32).all()
    other = open_labelled("toytown:source?split=val&count=3&size=128x64")
    assert index_path(other) != index_path(data)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_give_results_in_order_and_hand_on_the_first_error(workers):
    assert list(in_order(lambda index: index * 2, 20, workers)) == list(range(0, 40, 2))
    seen = []

    def work(index):
        seen.append(index)
        if index == 2:
            raise DataError("no")
        return index

    with pytest.raises(DataError):
        list(in_order(work, 1000, workers))
    assert len(seen) < 20  # the rest was not begun


def test_sets_travel_to_the_processes_that_prepare_batches(folder):
    data = open_labelled(f"folder:{folder}?classes=camvid")
    copy = pickle.loads(pickle.dumps(data))
    assert (copy.label(1) == data.label(1)).all() and copy.fingerprint() == data.fingerprint()


def test_a_survey_finds_every_fault_and_goes_on(folder):
    (folder / "labels" / "0.png").unlink()
    (folder / "images" / "1.png").write_bytes(b"no picture")
    assert cv2.imwrite(str(folder / "labels" / "2.png"), np.full((20, 30), 77, np.uint8))
    assert cv2.imwrite(str(folder / "labels" / "3.png"), np.full((10, 30), 3, np.uint8))
    assert cv2.imwrite(str(folder / "labels" / "4.png"), np.zeros((20, 30), np.uint8))
    assert cv2.imwrite(str(folder / "labels" / "9.png"), np.zeros((20, 30), np.uint8))
    found = survey(f"folder:{folder}")
    assert {kind: len(faults) for kind, faults in found.faults.items() if faults} == {
        "unreadable": 1,
        "no_label": 1,
        "unknown_ids": 1,
        "size_mismatch": 1,
    }
    assert found.fault_count == 4 and found.pictures == 5 and found.labels == 3 and found.index is None
    assert "1.png" in found.faults["unreadable"][0] and "30x10" in found.faults["size_mismatch"][0]
    assert [path.rpartition("/")[2] for path in found.blank_labels] == ["4.png"]
    assert [path.rpartition("/")[2] for path in found.no_picture] == ["9.png"]
    assert found.sizes == {"30x20": 4}
    assert survey(f"folder:{folder}", labels=False).faults["unreadable"] == found.faults["unreadable"]


def test_a_survey_says_what_to_do_about_each_file_that_is_no_picture(folder):
    for number, start in enumerate((b"no picture", b"version https://git-lfs.github.com/spec/v1", b"<html>")):
        (folder / "images" / f"{number}.png").write_bytes(start)
    found = survey(f"folder:{folder}", labels=False)
    told = [*zip(found.faults["unreadable"], (found.fixes["unreadable"], "git lfs pull", "download it again"))]
    assert len(told) == 3 and "text file" in told[0][0]
    assert all(fix in fault for fault, fix in told[1:])


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_a_picture_that_exif_turns_is_a_fault_beside_a_label_and_turned_without(folder, suffix, orientation):
    (folder / "images" / "3.png").unlink()
    path = folder / "images" / f"3{suffix}"
    path.write_bytes(turned(suffix, np.zeros((20, 30, 3), np.uint8), orientation))
    found = survey(f"folder:{folder}")
    assert (
        len(found.faults["turned"]) == 1 and not found.faults["unreadable"] and str(path) in found.faults["turned"][0]
    )
    assert f"EXIF (orientation {orientation})" in found.faults["turned"][0]
    assert f"exiftool -overwrite_original -n -Orientation=1 {path}" in found.fixes["turned"]
    without = survey(f"folder:{folder}", labels=False)
    assert without.fault_count == 0
    assert without.sizes == ({"30x20": 4, "20x30": 1} if orientation > 4 else {"30x20": 5})


def test_a_label_that_exif_turns_is_a_fault(folder):
    path = folder / "labels" / "3.png"
    path.write_bytes(turned(".png", cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 3))
    assert f"label {path} is turned by its EXIF" in survey(f"folder:{folder}").faults["turned"][0]


def test_a_survey_without_faults_leaves_the_index_that_a_training_takes(folder):
    classes = {"ids": {str(number): f"class {number}" for number in range(5)}, "ignore": [255]}  # most pixels are 255
    (folder / "classes.json").write_text(json.dumps(classes))
    found = survey(f"folder:{folder}")
    told = []
    index = index_of(open_labelled(f"folder:{folder}"), progress=lambda *at: told.append(at))
    assert told == [] and found.index == str(index_path(open_labelled(f"folder:{folder}")))
    assert found.percent[:5] == pytest.approx(100 * index.frequencies[:5], abs=1e-3)
    assert found.in_pictures == (1, 1, 1, 1, 1)


def test_the_command_that_checks_a_set_looks_at_labels_only_where_it_has_them(folder):
    address = f"folder:{folder}?list=a b.txt"
    (folder / "a b.txt").write_text("1\n")
    assert open_labelled(address).check_command == f"rtda-deploy data check '{address}'"
    assert open_unlabelled(address).check_command == f"rtda-deploy data check '{address}' --target"
