"""Sets that teach nothing or something else: ``data check``, and a look before a training, stop at the same faults."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.data.first_look import first_look, shared_pictures
from rtda_training.data.index import index_path
from rtda_training.data.labels.faults import doubt, fitting_line
from rtda_training.data.survey import survey
from rtda_training.labels import CITYSCAPES, LabelMeaning
from rtda_training.readers import open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
HW = (40, 48)
COLOURS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
pytestmark = pytest.mark.usefixtures("cache")


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*HW, 3), dtype=np.uint8)


def mask(*values):
    """Bands of these values."""
    return np.resize(np.repeat(np.array(values, np.uint8), -(-HW[0] // len(values))), HW[::-1]).T.copy()


def a_set(root, classes, *labels):
    for number, label in enumerate(labels):
        write(root / "images" / f"{number}.jpg", photo(number))
        write(root / "labels" / f"{number}.png", label)
    if classes is not None:
        (root / "classes.json").write_text(json.dumps(classes))
    return f"folder:{root}"


def names(*given):
    return {"names": list(given), "palette": COLOURS[: len(given)]}


def faults(address, split="train"):
    found = survey(address, split=split)
    return {kind: texts for kind, texts in found.faults.items() if texts}, found.fixes


# what the values of all labels say

CASES = {
    "0 and 255 under two names": (names("road", "car"), (mask(0, 255),), {"empty_class"}),
    "a class without a pixel": (names("road", "car", "sky"), (mask(0, 2), mask(2)), {"empty_class"}),
    "255 in most of the set": (names("road", "car"), (mask(0, 1, 255, 255, 255),), {"mostly_ignored"}),
    "255 that no table names": ({"ids": {"7": "road"}}, (mask(7, 255, 255),), {"mostly_ignored"}),
    "Cityscapes by assumption, 255 in most of it": (None, (mask(0, 255, 255, 255),), {"mostly_ignored"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_check_and_a_training_stop_at_the_same_fault_and_the_line_they_print_mends_it(tmp_path, case):
    classes, labels, kinds = CASES[case]
    address = a_set(tmp_path / "set", classes, *labels)
    found, fixes = faults(address)
    assert set(found) == kinds
    with pytest.raises(DataError) as caught:
        first_look(open_labelled(address), to_train=True)
    kind = next(iter(kinds))
    assert (caught.value.message, caught.value.hint) == (found[kind][0], fixes[kind])
    if f"write into {tmp_path}/set/classes.json: " in fixes[kind]:
        line = fixes[kind].partition("classes.json: ")[2].partition("   or")[0]
        (tmp_path / "set" / "classes.json").write_text(line)
    elif "add" in fixes[kind]:
        key, value = next(iter(json.loads("{" + fixes[kind].partition("add ")[2].partition("]")[0] + "]}").items()))
        (tmp_path / "set" / "classes.json").write_text(json.dumps({**classes, key: value}))
    assert faults(address)[0] == {}
    first_look(open_labelled(address), to_train=True)


def test_masks_of_255_alone_are_to_be_labelled_and_no_table_of_ids_is_offered(tmp_path):
    address = a_set(tmp_path, names("road", "car"), mask(255), mask(255))
    found, fixes = faults(address)
    assert set(found) == {"nothing_labelled"} and "255 alone, which means not labelled" in found["nothing_labelled"][0]
    wanted = "give each pixel the number of its class (0 road, 1 car), 255 where it has none"
    with pytest.raises(DataError) as caught:
        first_look(open_labelled(address), to_train=True)
    assert caught.value.hint == fixes["nothing_labelled"] == wanted


def test_masks_of_0_and_255_become_the_two_classes_that_were_meant(tmp_path):
    address = a_set(tmp_path, names("road", "car"), mask(0, 255))
    line = faults(address)[1]["empty_class"].partition("classes.json: ")[2].partition("   or")[0]
    assert json.loads(line) == {"ids": {"0": "road", "255": "car"}}
    (tmp_path / "classes.json").write_text(line)
    assert (open_labelled(address).label(0) == (mask(0, 255) == 255)).all()


def test_ids_of_no_class_come_with_a_mapping_of_all_that_were_found(tmp_path):
    address = a_set(tmp_path, names("road", "car"), mask(0, 100, 255), mask(100, 200), mask(0, 200))
    found, fixes = faults(address)
    assert len(found["unknown_ids"]) == 3
    line = {"ids": {"0": "road", "100": "car", "200": "class 200"}, "ignore": [255]}
    assert json.loads(fixes["unknown_ids"].partition("classes.json: ")[2]) == line
    with pytest.raises(DataError, match=r"0\.png has values outside its 2 classes: 100") as caught:
        first_look(open_labelled(address), to_train=True)
    assert caught.value.hint == fixes["unknown_ids"]
    (tmp_path / "classes.json").write_text(json.dumps(line))
    assert faults(address)[0] == {}


def test_label_ids_of_cityscapes_without_a_classes_file_are_recognised(tmp_path):
    address = a_set(tmp_path, None, mask(7, 11, 23, 26))
    _, fixes = faults(address)
    (tmp_path / "classes.json").write_text(fixes["unknown_ids"].partition("classes.json: ")[2])
    data = open_labelled(address)
    assert data.classes.names == CITYSCAPES.names
    assert (data.label(0) == mask(0, 2, 10, 13)).all()


def test_a_set_to_measure_on_may_lack_a_class_and_so_may_one_that_says_so(tmp_path):
    address = a_set(tmp_path, names("road", "car", "sky"), mask(0, 2))
    first_look(open_labelled(address), to_train=False)
    assert faults(address, split="val")[0] == {}
    classes = {**names("road", "car", "sky"), "absent": ["car"]}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    assert faults(address)[0] == {}
    known = a_set(tmp_path / "known", {"names": list(CITYSCAPES.names), "palette": CITYSCAPES.palette}, mask(0, 10))
    assert faults(known)[0] == {}  # papers' lists hold what a set may lack


def test_a_first_look_reads_few_labels_keeps_what_it_counted_and_says_what_it_did_not_see(tmp_path):
    look = partial(first_look, to_train=True, few=2, many=4)
    address = a_set(tmp_path, names("road", "car"), *[mask(0, 1)] * 6)
    read, told = [], []
    look(open_labelled(address), progress=lambda *at: read.append(at))
    assert read == [(1, 4), (2, 4)] and not index_path(open_labelled(address)).exists()
    for number in range(6):
        write(tmp_path / "labels" / f"{number}.png", mask(0))
    read.clear()
    look(open_labelled(address), progress=lambda *at: read.append(at), tell=told.append)
    assert len(read) == 4 and "4 of 6 labels hold no pixel of car" in told[0] and "data check" in told[0]
    small = a_set(tmp_path / "small", names("road", "car"), *[mask(0, 1)] * 2)
    look(open_labelled(small))
    read.clear()
    look(open_labelled(small), progress=lambda *at: read.append(at))
    assert read == []  # the index of a set that was read whole


def test_what_is_assumed_is_said_and_doubted_where_the_ids_speak_against_it(tmp_path):
    like_camvid = [mask(0, 1, 3, 8)] * 10
    address, told = a_set(tmp_path, None, *like_camvid), []
    first_look(open_labelled(address), to_train=True, tell=told.append)
    assert "taken for Cityscapes' 19 classes" in told[0] and "0, 1, 3, 8" in told[1]
    assert [note.partition(":")[0] for note in survey(address).notes] == [
        f"no {tmp_path}/classes.json",
        told[1][:25],
    ] or (told[1] in survey(address).notes)
    counts = np.zeros(20, np.int64)
    counts[[0, 10, 13]] = 5
    assert doubt(counts, 50, LabelMeaning("x", assumed=True)) == ""
    assert doubt(counts[:11], 50, LabelMeaning("x", names=("a",))) == ""


def test_masks_of_0_and_255_without_a_class_list_are_doubted_however_few(tmp_path):
    address, told = a_set(tmp_path, None, mask(0, 0, 0, 255)), []
    first_look(open_labelled(address), to_train=True, tell=told.append)
    assert "hold 0 and 255 alone" in told[1] and "classes.json" in told[1]


def test_pictures_that_are_trained_and_measured_on_are_counted(tmp_path):
    data = open_labelled(a_set(tmp_path, None, mask(0, 13), mask(0, 13)))
    (tmp_path / "l.txt").write_text("1.jpg\n")
    assert shared_pictures([data], open_labelled(f"folder:{tmp_path}?list=l.txt")) == 1
    (tmp_path / "link").symlink_to(tmp_path)
    assert shared_pictures([data], open_labelled(f"folder:{tmp_path / 'link'}?list=l.txt")) == 1


@pytest.mark.parametrize(
    ("values", "classes", "line"),
    [
        ((0, 128, 255), ("a", "b", "c"), {"ids": {"0": "a", "128": "b", "255": "c"}}),
        ((0, 1, 255), ("a", "b"), {"ids": {"0": "a", "1": "b"}, "ignore": [255]}),
        ((0, 255), (), {"ids": {"0": "class 0", "255": "class 255"}}),
        ((1, 2), ("a", "b"), {"ids": {"1": "a", "2": "b"}}),
    ],
)
def test_a_fitting_line(values, classes, line):
    assert json.loads(fitting_line(classes, values)) == line


# classes.json


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"ids": {"3": "a", "03": "b"}}', "3 is given twice"),
        ('{"ids": {"3": "a", "3": "b"}}', "'3' is given twice"),
        ('{"ids": {"3": "a"}, "ids": {"4": "a"}}', "'ids' is given twice"),
        ('{"ids": {"1_0": "a"}}', "'1_0' is no id"),
        ('{"colors": {"1,2,3": "a", "1, 2, 3": "b"}}', r"\(1, 2, 3\) is given twice"),
        ('{"colors": [[[1, 2, 3], "a"], ["1,2,3", "b"]]}', r"\(1, 2, 3\) is given twice"),
        ('{"names": ["a", ""], "palette": [[1, 2, 3], [4, 5, 6]]}', "a class is named ''"),
        ('{"names": ["a", " "], "palette": [[1, 2, 3], [4, 5, 6]]}', "a class is named ' '"),
        ('{"names": ["a", null], "palette": [[1, 2, 3], [4, 5, 6]]}', "a class is named None"),
        ('{"ids": {"1": 5}}', "a class is named 5"),
        ('{"names": ["a"], "palette": [[1, 2, 3]], "ignore": [7]}', 'has no "ids": it would do nothing'),
        ('{"names": ["a"], "ignore": [7]}', 'has no "ids": it would do nothing'),
        ('{"ids": {"1": "a"}, "ignore": ["1,2,3"]}', 'has no "colors": it would do nothing'),
        ('{"colors": {"1,2,3": "a"}, "ignore": [1]}', 'has no "ids": it would do nothing'),
        ('{"ids": {"1": "a"}, "ignore": [1]}', "1 is 'a' and stands under \"ignore\" too"),
        ('{"ids": {"1": "a"}, "ignore": 0}', r'such as "ignore": \[0\]'),
        ('{"ids": {"1": "a"}, "absent": ["b"]}', "'b', no name of it"),
        ('{"classes": ["a"]}', 'it has none of "names", "ids" and "colors"'),
    ],
)
def test_a_classes_file_that_says_two_things_or_nothing_is_refused(tmp_path, text, error):
    address = a_set(tmp_path, None, mask(0))
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError) as caught:
        open_labelled(address)
    assert re.search(error, f"{caught.value.message} {caught.value.why}"), caught.value.why
    assert "classes.json" in caught.value.message and caught.value.hint


def test_the_line_for_ignore_beside_names_works_when_written(tmp_path):
    address = a_set(tmp_path, {**names("road", "car"), "ignore": [7, 255]}, mask(0, 1, 7, 255))
    with pytest.raises(DataError) as caught:
        open_labelled(address)
    (tmp_path / "classes.json").write_text(caught.value.hint.partition("write it so: ")[2])
    assert (open_labelled(address).label(0) == mask(0, 1, 255, 255)).all()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_classes_file_of_any_editor_is_read(tmp_path, encoding):
    address = a_set(tmp_path, None, mask(3, 4))
    (tmp_path / "classes.json").write_bytes('{"ids": {"3": "Straße", "4": "空"}}'.encode(encoding))
    assert open_labelled(address).classes.names == ("Straße", "空")


def test_a_classes_file_may_lie_elsewhere(tmp_path):
    address = a_set(tmp_path / "set", names("road", "car"), mask(0, 1))
    (tmp_path / "mine+1.json").write_text(json.dumps({"ids": {"0": "sky", "1": "tree"}}))
    data = open_labelled(f"{address}?classes={tmp_path}/mine+1.json")
    assert data.classes.names == ("sky", "tree") and (data.label(0) == mask(0, 1)).all()
    with pytest.raises(ConfigError, match=r"none\.json is neither in"):
        open_labelled(f"{address}?classes=none.json")
    assert open_labelled(f"{address}?classes=cityscapes").classes == CITYSCAPES


# labels among the pictures


def test_vocs_layout_is_read_and_its_masks_are_no_target(tmp_path):
    for name in "abc":
        write(tmp_path / "JPEGImages" / f"{name}.jpg", photo())
    write(tmp_path / "SegmentationClass" / "b.png", mask(0, 13))
    assert len(open_unlabelled(f"folder:{tmp_path}")) == 3
    (tmp_path / "train.txt").write_text("b\n")
    assert (open_labelled(f"folder:{tmp_path}?list=train.txt").label(0) == mask(0, 13)).all()


@pytest.mark.parametrize("kind", ["grey", "colours"])
@pytest.mark.parametrize(
    "layout",
    [
        ("rgb/{}.png", "seg/{}.png"),
        ("{}.png", "{}_mask.png"),
        ("x/{}.png", "x/{}_L.png"),
        ("images/{}.png", "images/{}_L.png"),
    ],
)
def test_pictures_that_look_like_labels_are_left_out_of_a_target_and_counted(tmp_path, layout, kind):
    label = mask(0, 1, 2)
    label = label if kind == "grey" else np.dstack([label * 90, label, 255 - label])
    for number in range(4):
        write(tmp_path / layout[0].format(number), photo(number))
        write(tmp_path / layout[1].format(number), label)
    data = open_unlabelled(f"folder:{tmp_path}")
    assert sorted(data.name(index) for index in range(len(data))) == [
        str(tmp_path / layout[0].format(number)) for number in range(4)
    ]
    left = survey(f"folder:{tmp_path}", labels=False).left_out
    assert [len(paths) for paths in left.values()] == [4] and "look like labels" in next(iter(left))
    (tmp_path / "l.txt").write_text(layout[0].format(1) + "\n")
    assert survey(f"folder:{tmp_path}?list=l.txt", labels=False).left_out == {}


def test_a_folder_of_labels_alone_is_refused_as_a_target(tmp_path):
    write(tmp_path / "1.png", mask(0, 1))
    with pytest.raises(DataError, match="no pictures but 1 that look like labels") as caught:
        open_unlabelled(f"folder:{tmp_path}")
    assert "images" in caught.value.hint
    (tmp_path / "images").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "images" / "1.png")  # what the hint says
    assert len(open_unlabelled(f"folder:{tmp_path}")) == 1
    assert len(open_unlabelled(f"folder:{tmp_path}/images")) == 1


def test_a_film_as_a_folder_says_how_it_is_typed(tmp_path):
    film = tmp_path / "my drive.mp4"
    film.write_bytes(b"film")
    with pytest.raises(DataError, match="is no folder") as caught:
        open_unlabelled(f"folder:{film}")
    assert caught.value.hint.endswith(f"type video:{film}")


def test_grey_and_dark_pictures_are_pictures(tmp_path):
    write(tmp_path / "thermal.png", photo()[..., 0] // 8)
    write(tmp_path / "night" / "black.png", np.zeros(HW, np.uint8))
    write(tmp_path / "smooth" / "sky.png", np.repeat(np.arange(HW[0] * 2, dtype=np.uint8)[:, None], 48, axis=1))
    assert len(open_unlabelled(f"folder:{tmp_path}")) == 3


@pytest.mark.parametrize(
    ("suffix", "picture", "label"),
    [
        ("_L", "images/a.jpg", "labels/a_L.png"),
        ("_mask", "a.png", "a_mask.png"),
        ("_gtFine_labelIds", "x/a_leftImg8bit.png", "x/a_gtFine_labelIds.png"),
        ("_mask.bmp", "images/a.png", "images/a_mask.bmp"),
    ],
)
def test_labels_with_an_ending_are_found_by_it_and_the_error_names_it(tmp_path, suffix, picture, label):
    write(tmp_path / picture, photo())
    write(tmp_path / label, mask(0, 13))
    data = open_labelled(f"folder:{tmp_path}?label_suffix={suffix}")
    assert len(data) == 1 and (data.label(0) == mask(0, 13)).all() and data.name(0).endswith(picture)
    assert len(open_unlabelled(f"folder:{tmp_path}?label_suffix={suffix}")) == 1
    if not suffix.endswith(".bmp"):
        with pytest.raises(DataError) as caught:
            open_labelled(f"folder:{tmp_path}")
        assert f"type ?label_suffix={suffix}" in caught.value.hint
