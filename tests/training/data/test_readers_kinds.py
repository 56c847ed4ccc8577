"""Each data set in its own layout and format, on small files made here: GTA5, SYNTHIA, IDDA, CARLA, folders."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.data.labels.files import read_mask
from rtda_training.labels import CAMVID, CITYSCAPES, ClassList
from rtda_training.readers import LabelledSet, open_labelled, open_unlabelled

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
HW = (24, 35)  # an odd width: rows of 4, 2 and 1 bits end within a byte


def index_of(name):
    return CITYSCAPES.names.index(name)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# Adam7: first row and column of each pass, and the steps between them (ISO/IEC 15948, 8.2).
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def filtered(indices, depth, row_filters):
    """The rows of a picture, or of one pass of it, as a PNG stores them before they are compressed."""
    height = len(indices)
    bits = ((indices[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(height, -1)
    rows = np.packbits(bits, axis=1).astype(int)
    zero = np.zeros(rows.shape[1], int)
    body = b""
    for number, row in enumerate(rows):
        up = rows[number - 1] if number else zero
        left, corner = np.append(0, row[:-1]), np.append(0, up[:-1])
        guess = left + up - corner
        near = np.abs(np.stack([guess - left, guess - up, guess - corner])).argmin(axis=0)
        predicted = [zero, left, up, (left + up) // 2, np.choose(near, [left, up, corner])]
        kind = row_filters[number % len(row_filters)]
        body += bytes([kind]) + ((row - predicted[kind]) % 256).astype(np.uint8).tobytes()
    return body


def png(indices, depth=8, colour_type=3, row_filters=(0,), interlace=0):
    """A PNG of palette indices, by the specification alone; each row takes the next of ``row_filters``."""
    height, width = indices.shape
    parts = [indices[top::down, left::right] for top, left, down, right in PASSES] if interlace else [indices]
    body = b"".join(filtered(part, depth, row_filters) for part in parts if part.size)
    palette = np.random.default_rng(5).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    packed = zlib.compress(body)
    middle = len(packed) // 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"PLTE", palette.tobytes()) if colour_type == 3 else b"")
        + chunk(b"tEXt", b"Software\0a test")
        + chunk(b"IDAT", packed[:middle])
        + chunk(b"IDAT", packed[middle:])
        + chunk(b"IEND", b"")
    )


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        assert cv2.imwrite(str(path), content)
    return path


def frame(seed=0, hw=HW):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def spread(values, hw=HW):
    """Every one of ``values`` somewhere."""
    return np.resize(np.array(values), hw[0] * hw[1]).reshape(hw)


# palette files


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("row_filters", [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)])
def test_a_palette_file_gives_its_indices_and_not_its_colours(tmp_path, depth, row_filters, interlace):
    indices = np.random.default_rng(depth).integers(0, 1 << depth, HW)
    path = write(tmp_path / "label.png", png(indices, depth, row_filters=row_filters, interlace=interlace))
    mask = read_mask(path)
    assert mask.dtype == np.uint8 and (mask == indices).all()


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_file_of_few_bits_gives_ids_that_are_not_stretched(tmp_path, depth, interlace):
    ids = np.random.default_rng(depth).integers(0, 1 << depth, HW)
    assert (read_mask(write(tmp_path / "label.png", png(ids, depth, colour_type=0, interlace=interlace))) == ids).all()


@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (5, 8), (9, 9)])
def test_an_interlaced_palette_file_of_any_size_gives_its_indices(tmp_path, hw):
    indices = np.arange(hw[0] * hw[1]).reshape(hw) % 35
    mask = read_mask(write(tmp_path / "label.png", png(indices, interlace=1, row_filters=(4, 1))))
    assert mask.tolist() == indices.tolist()


@pytest.mark.parametrize("name", ["label.jpg", "label.png"])
def test_a_label_saved_as_jpeg_is_refused_whatever_it_is_called(tmp_path, name):
    content = cv2.imencode(".jpg", spread([0, 7]).astype(np.uint8))[1].tobytes()
    with pytest.raises(DataError, match=r"is a JPEG, which is lossy"):
        read_mask(write(tmp_path / name, content))


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("colour_type", [3, 0])
def test_a_file_that_is_cut_off_is_never_filled_up(tmp_path, kept, colour_type):
    content = png(np.random.default_rng(1).integers(0, 35, HW), colour_type=colour_type)
    path = write(tmp_path / "label.png", content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"label\.png"):
        read_mask(path)


def test_a_flipped_bit_in_a_palette_file_is_noticed(tmp_path):
    content = bytearray(png(spread(range(35))))
    content[-30] ^= 4
    with pytest.raises(DataError, match="damaged"):
        read_mask(write(tmp_path / "label.png", bytes(content)))


# GTA5

GTA5 = {  # id -> class, from the list that the papers share; all others are not trained on
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}


def gta5_root(root, numbers=range(1, 41), content=None):
    for number in numbers:
        write(root / "images" / f"{number:05d}.png", frame(number))
        write(root / "labels" / f"{number:05d}.png", png(spread(range(35))) if content is None else content)
    return root


def mapped(ids, names):
    table = np.full(256, 255, np.uint8)
    for number, name in names.items():
        table[number] = index_of(name)
    return table[ids]


@pytest.mark.parametrize("kind", ["palette", "grey"])
def test_gta5s_ids_become_train_ids(tmp_path, kind):
    ids = spread(range(35))
    root = gta5_root(tmp_path, [1], png(ids) if kind == "palette" else ids.astype(np.uint8))
    assert (open_labelled(f"gta5:{root}").label(0) == mapped(ids, GTA5)).all()


def test_gta5_labels_saved_as_colours_are_mapped_exactly(tmp_path):
    label = spread([*range(19), 255]).astype(np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[:19], colours[255] = CITYSCAPES.palette, (20, 20, 20)
    root = gta5_root(tmp_path, [1], np.ascontiguousarray(colours[label][..., ::-1]))
    assert (open_labelled(f"gta5:{root}").label(0) == label).all()
    smooth = colours[label]
    smooth[3, 4] = (127, 64, 128)
    write(root / "labels" / "00001.png", np.ascontiguousarray(smooth[..., ::-1]))
    with pytest.raises(DataError, match=r"00001\.png .*colours .*\(127, 64, 128\)"):
        open_labelled(f"gta5:{root}").label(0)


def test_gta5_labels_that_are_train_ids_already_are_refused(tmp_path):
    root = gta5_root(tmp_path, [1], spread([*range(19), 255]).astype(np.uint8))
    with pytest.raises(DataError, match=r"00001\.png looks like train ids"):
        open_labelled(f"gta5:{root}").label(0)
    write(root / "labels" / "00001.png", spread(range(40)).astype(np.uint8))
    with pytest.raises(DataError, match=r"outside GTA5's ids 0\.\.34: 35, 36, 37, 38, 39"):
        open_labelled(f"gta5:{root}").label(0)


def test_gta5_is_split_by_number_the_same_way_everywhere(tmp_path):
    root = gta5_root(tmp_path)
    keys = {split: [data.key(i) for i in range(len(data))] for split, data in opened(f"gta5:{root}").items()}
    assert keys["val"] == ["00020", "00040"] and keys["test"] == ["00010", "00030"]
    assert len(keys["train"]) == 36 and len(keys["all"]) == 40
    (root / "images" / "00003.png").unlink()  # another picture missing moves no other
    assert [data.key(0) for data in [open_labelled(f"gta5:{root}?split=val")]] == ["00020"]


def opened(address):
    return {split: open_labelled(f"{address}?split={split}") for split in ("train", "val", "test", "all")}


def test_gta5_takes_the_lists_beside_the_pictures_and_typed_ones(tmp_path):
    root = gta5_root(tmp_path, range(1, 8))
    (root / "mine.txt").write_text("# numbers, names and paths\n3\n\n00005.png  # a comment\nimages/00001.png\n")
    data = open_labelled(f"gta5:{root}?list=mine.txt")
    assert [data.key(index) for index in range(3)] == ["00003", "00005", "00001"]
    (root / "bad.txt").write_text("3\n99\n")
    with pytest.raises(DataError, match=r"bad\.txt:2: '99' names no picture"):
        open_labelled(f"gta5:{root}?list=bad.txt")
    with pytest.raises(ConfigError, match=r"none\.txt"):
        open_labelled(f"gta5:{root}?list=none.txt")
    (root / "train.txt").write_text("2\n4\n")
    assert len(open_labelled(f"gta5:{root}")) == 2
    with pytest.raises(DataError, match=r"no val\.txt"):
        open_labelled(f"gta5:{root}?split=val")


def test_an_empty_split_says_where_it_looked(tmp_path):
    root = gta5_root(tmp_path, [1, 2])
    with pytest.raises(DataError, match=rf"no pictures in its val split \({root}/images"):
        open_labelled(f"gta5:{root}?split=val")


# SYNTHIA


def synthia_root(root, ids, depth=16):
    label = np.zeros((*ids.shape, 3), np.uint16 if depth == 16 else np.uint8)
    label[..., 2] = ids  # OpenCV writes BGR: the last is red
    label[..., 1] = 700 if depth == 16 else 0  # instances stand in green
    write(root / "RGB" / "0000001.png", frame())
    write(root / "GT" / "LABELS" / "0000001.png", label)
    return root


SYNTHIA = {
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    15: "traffic light",
    16: "terrain",
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
}


def test_synthias_ids_are_in_the_red_channel_of_16_bits(tmp_path):
    ids = spread(range(23))
    root = synthia_root(tmp_path, ids)
    assert (open_labelled(f"synthia:{root}").label(0) == mapped(ids, SYNTHIA)).all()
    road = open_labelled(f"synthia:{root}?lane=road").label(0)
    assert (road == mapped(ids, {**SYNTHIA, 22: "road"})).all()
    assert (open_labelled(f"synthia:{root}?lane=ignore").label(0)[ids == 22] == 255).all()
    with pytest.raises(ConfigError, match="lane=pavement"):
        open_labelled(f"synthia:{root}?lane=pavement")


def test_synthia_labels_reduced_to_8_bits_are_refused_with_the_reason(tmp_path):
    root = synthia_root(tmp_path, np.zeros(HW, int), depth=8)  # what an 8-bit reader makes of 16 bits
    with pytest.raises(DataError, match=r"0000001\.png is zero everywhere") as caught:
        open_labelled(f"synthia:{root}").label(0)
    assert "16 bits" in caught.value.why and "download" in caught.value.hint


def test_synthia_labels_of_one_channel_are_sent_to_folder(tmp_path):
    root = synthia_root(tmp_path, spread(range(23)))
    write(root / "GT" / "LABELS" / "0000001.png", spread(range(19)).astype(np.uint8))
    with pytest.raises(DataError, match="one channel") as caught:
        open_labelled(f"synthia:{root}").label(0)
    assert "folder:" in caught.value.hint


# IDDA

IDDA = {
    1: "building",
    2: "fence",
    4: "person",
    5: "pole",
    6: "road",
    7: "road",
    8: "sidewalk",
    9: "vegetation",
    10: "car",
    11: "wall",
    12: "traffic sign",
    13: "traffic light",
    16: "bicycle",
    17: "motorcycle",
    18: "rider",
    19: "terrain",
    20: "sky",
}


def test_iddas_ids_are_mapped_by_name(tmp_path):
    ids = spread(range(24)).astype(np.uint8)
    for scenario in ("T01_CN_A", "T02_CN_A"):
        write(tmp_path / scenario / "RGB" / "@61532@1.jpg", frame())
    write(tmp_path / "T01_CN_A" / "Semantic" / "@61532@1.png", ids)
    write(tmp_path / "T02_CN_A" / "Semantic" / "@61532@1.png", np.dstack([0 * ids, 0 * ids, ids]))
    data = open_labelled(f"idda:{tmp_path}")
    assert [data.key(i) for i in range(2)] == ["T01_CN_A/@61532@1", "T02_CN_A/@61532@1"]
    assert (data.label(0) == mapped(ids, IDDA)).all() and (data.label(1) == data.label(0)).all()
    one = open_labelled(f"idda:{tmp_path}/T02_CN_A")
    assert len(one) == 1 and one.key(0) == "@61532@1"
    with pytest.raises(DataError, match="RGB/"):
        open_labelled(f"idda:{tmp_path}/T02_CN_A/Semantic")


# Cityscapes


def cityscapes_root(root, suffix, label):
    write(root / "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", frame())
    write(root / f"gtFine/train/ulm/ulm_1_gtFine_{suffix}.png", label.astype(np.uint8))
    return root


def test_cityscapes_kinds_of_label_are_told_apart_by_their_name(tmp_path):
    root = cityscapes_root(tmp_path, "labelTrainIds", spread([*range(19), 255]))
    assert (open_labelled(f"cityscapes:{root}").label(0) == spread([*range(19), 255])).all()
    cityscapes_root(tmp_path, "labelIds", spread(range(34)))  # the original goes before what is made of it
    assert (open_labelled(f"cityscapes:{root}").label(0) == mapped(spread(range(34)), GTA5)).all()


@pytest.mark.parametrize(
    ("suffix", "values", "error"),
    [
        ("labelTrainIds", range(34), "outside the 19 train ids and 255: 19, 20"),
        ("labelIds", [*range(19), 255], "looks like train ids"),
        ("labelIds", [0, 1, 2, 8, 10, 13], "looks like train ids"),
        ("labelIds", [7, 40], "outside Cityscapes' label ids"),
    ],
)
def test_cityscapes_labels_under_the_wrong_name_are_refused(tmp_path, suffix, values, error):
    root = cityscapes_root(tmp_path, suffix, spread(values))
    with pytest.raises(DataError, match=error) as caught:
        open_labelled(f"cityscapes:{root}").label(0)
    assert f"ulm_1_gtFine_{suffix}.png" in caught.value.message and "label" in caught.value.hint


@pytest.mark.parametrize("values", [[0], [4], [7], [7, 8, 11, 12], [0, 3]])
def test_dull_cityscapes_labels_are_not_taken_for_train_ids(tmp_path, values):
    open_labelled(f"cityscapes:{cityscapes_root(tmp_path, 'labelIds', spread(values))}").label(0)


# CamVid: the whole of it is in test_readers_real.py


def test_camvids_twelfth_id_is_ignored_and_a_thirteenth_refused(tmp_path):
    ids = spread(range(12)).astype(np.uint8)
    write(tmp_path / "val" / "a.png", frame())
    write(tmp_path / "valannot" / "a.png", ids)
    (tmp_path / "l.txt").write_text("/val/a.png /other/b.png\n")
    assert (open_labelled(f"camvid:{tmp_path}?split=val").label(0) == spread([*range(11), 255])).all()
    with pytest.raises(DataError, match=r"l\.txt:1: label .*other/b\.png is not there"):
        open_labelled(f"camvid:{tmp_path}?list=l.txt")
    write(tmp_path / "other" / "b.png", np.full(HW, 9, np.uint8))
    assert (open_labelled(f"camvid:{tmp_path}?list=l.txt").label(0) == 9).all()
    write(tmp_path / "valannot" / "a.png", ids + 1)
    with pytest.raises(DataError, match=r"outside CamVid's ids 0\.\.11: 12"):
        open_labelled(f"camvid:{tmp_path}?split=val").label(0)
    write(tmp_path / "valannot" / "a.png", np.zeros((*HW, 3), np.uint8))
    with pytest.raises(DataError, match="holds colours"):
        open_labelled(f"camvid:{tmp_path}?split=val").label(0)


# CARLA: real files are in test_readers_real.py


def test_carla_0_9_10_has_23_ids(tmp_path):
    ids = spread(range(23)).astype(np.uint8)
    write(tmp_path / "images" / "1.png", frame())
    write(tmp_path / "labels" / "1.png", np.dstack([0 * ids, 0 * ids, ids, 255 + 0 * ids]))  # BGRA, as CARLA saves it
    label = open_labelled(f"carla:{tmp_path}?version=0.9.10").label(0)
    names = {1: "building", 13: "sky", 18: "traffic light", 22: "terrain", 6: "road", 10: "car"}
    for number in range(23):
        if number in names:
            assert (label[ids == number] == index_of(names[number])).all()
    assert (label[(ids >= 14) & (ids <= 17)] == 255).all()
    with pytest.raises(ConfigError, match=r"version=0\.7"):
        open_labelled(f"carla:{tmp_path}?version=0.7")


# folders


def folder_root(root, classes, label, count=1):
    for number in range(count):
        write(root / "images" / f"{number}.jpg", frame())
        write(root / "labels" / f"{number}.png", label)
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def test_a_folders_ids_are_named_in_its_classes_file(tmp_path):
    classes = {"names": ["sky", "road"], "ids": {"7": "road", "23": "sky", "300": "road", "9": ""}, "ignore": [0, 1]}
    ids = spread([7, 23, 300, 9, 0, 1, 255]).astype(np.uint16)
    data = open_labelled(f"folder:{folder_root(tmp_path, classes, ids)}")
    assert data.classes.names == ("sky", "road") and data.classes.palette[1] == (128, 64, 128)
    assert (data.label(0) == spread([1, 0, 1, 255, 255, 255, 255])).all()
    write(tmp_path / "labels" / "0.png", spread([7, 23, 24, 9]).astype(np.uint8))
    with pytest.raises(DataError, match=r"labels/0\.png holds ids outside .*classes\.json: 24"):
        data.label(0)


@pytest.mark.parametrize("shape", ["mapping", "list"])
def test_a_folders_colours_are_named_in_its_classes_file(tmp_path, shape):
    colours = {"128,64,128": "road", "0,0,142": "van", "10,20,30": "van"}
    given = (
        colours if shape == "mapping" else [[[int(v) for v in key.split(",")], name] for key, name in colours.items()]
    )
    label = np.array([(128, 64, 128), (0, 0, 142), (10, 20, 30), (0, 0, 0)], np.uint8)[spread(range(4))]
    root = folder_root(tmp_path, {"colors": given, "ignore": ["0,0,0"]}, np.ascontiguousarray(label[..., ::-1]))
    data = open_labelled(f"folder:{root}")
    assert data.classes == ClassList(("road", "van"), ((128, 64, 128), (0, 0, 142)))
    assert (data.label(0) == spread([0, 1, 1, 255])).all()
    label[2, 3] = (1, 2, 3)
    write(root / "labels" / "0.png", np.ascontiguousarray(label[..., ::-1]))
    with pytest.raises(DataError, match=r"labels/0\.png holds colours outside .*\(1, 2, 3\)"):
        data.label(0)
    write(root / "labels" / "0.png", np.zeros(HW, np.uint8))
    with pytest.raises(DataError, match=r'holds ids, and classes\.json has no "ids"'):
        data.label(0)


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["a"], "ids": {"1": "b"}},
        {"ids": {"x": "a"}},
        {"ids": {"70000": "a"}},
        {"colors": {"1,2": "a"}},
        {"colors": {"1,2,300": "a"}},
        {"names": ["a", "a"], "palette": [[1, 2, 3], [4, 5, 6]]},
        ["a"],
    ],
)
def test_a_classes_file_that_makes_no_sense_is_named(tmp_path, classes):
    with pytest.raises(DataError, match=r"classes\.json"):
        open_labelled(f"folder:{folder_root(tmp_path, classes, np.zeros(HW, np.uint8))}")


def test_a_palette_file_is_a_good_mask_of_a_folder(tmp_path):
    root = folder_root(tmp_path, {"names": ["a", "b"], "palette": [[1, 2, 3], [4, 5, 6]]}, png(spread([0, 1, 255])))
    assert (open_labelled(f"folder:{root}").label(0) == spread([0, 1, 255])).all()


def test_a_split_that_a_folder_has_not_is_not_replaced_by_everything(tmp_path):
    write(tmp_path / "train/images/a.png", frame())
    write(tmp_path / "train/labels/a.png", np.zeros(HW, np.uint8))
    for open_it in (open_labelled, open_unlabelled):
        with pytest.raises(DataError, match="has no val split"):
            open_it(f"folder:{tmp_path}?split=val")
    write(tmp_path / "val/images/b.png", frame())
    write(tmp_path / "val/labels/b.png", np.zeros(HW, np.uint8))
    measured = open_labelled(f"folder:{tmp_path}", split="test")  # what eval asks for where nothing was typed
    assert measured.address.split == "val" and measured.name(0).endswith("b.png")
    with pytest.raises(DataError, match="has no test split"):
        open_labelled(f"folder:{tmp_path}?split=test")


# what all kinds share


def test_pictures_of_another_folder_stand_over_the_same_labels(tmp_path):
    root = gta5_root(tmp_path / "gta", [1, 2])
    other = tmp_path / "translated"
    write(other / "00001.jpg", np.full((12, 17, 3), 200, np.uint8))
    with pytest.raises(DataError, match=r"1 of 2 pictures are not in .*translated, first: 00002"):
        open_labelled(f"gta5:{root}?pictures={other}")
    write(other / "deeper" / "00002.png", np.full((*HW, 3), 9, np.uint8))
    data = open_labelled(f"gta5:{root}?pictures={other}")
    shown, label = data.pair(0)
    assert shown.shape == (*HW, 3) and shown.mean() == 200 and (label == mapped(spread(range(35)), GTA5)).all()
    assert data.frame(1).mean() == 9 and data.key(1) == "00002"
    assert open_unlabelled(f"gta5:{root}?pictures={other}").frame(0).shape == (12, 17, 3)


def test_labels_are_given_in_the_classes_asked_for(tmp_path):
    root = gta5_root(tmp_path, [1])
    data = open_labelled(f"gta5:{root}?classes=camvid")
    assert data.classes == CAMVID and isinstance(data, LabelledSet)
    own, joined = open_labelled(f"gta5:{root}").label(0), data.label(0)
    expected = {
        "wall": "Fence",
        "rider": "Bicyclist",
        "bus": "Car",
        "traffic light": "SignSymbol",
        "person": "Pedestrian",
    }
    for name, into in expected.items():
        assert set(joined[own == index_of(name)]) == {CAMVID.names.index(into)}
    for name in ("terrain", "motorcycle"):
        assert set(joined[own == index_of(name)]) == {255}
    assert open_unlabelled(f"gta5:{root}", classes=CAMVID).classes == CAMVID
    with pytest.raises(ConfigError, match="'ade'") as caught:
        open_labelled(f"gta5:{root}?classes=ade")
    assert "camvid" in caught.value.hint
    fruit = ClassList(("apple", "pear"), ((1, 2, 3), (4, 5, 6)))
    with pytest.raises(DataError, match=r"nothing in common: road, .*\| apple, pear"):
        open_labelled(f"gta5:{root}", classes=fruit)


def test_a_bad_id_is_not_joined_into_ignore(tmp_path):
    root = folder_root(
        tmp_path, {"names": ["road", "sky"], "palette": [[1, 2, 3], [4, 5, 6]]}, spread([0, 7]).astype(np.uint8)
    )
    with pytest.raises(DataError, match="outside its 2 classes: 7"):
        open_labelled(f"folder:{root}?classes=cityscapes").label(0)


def test_all_is_a_split_only_where_a_set_has_none_of_its_own(tmp_path):
    with pytest.raises(ConfigError, match="'all'"):
        open_labelled("toytown:source?split=all")


LAYOUTS = {
    "gta5": ("images/00001.png", "labels/00001.png"),
    "synthia": ("RGB/0000001.png", "GT/LABELS/0000001.png"),
    "cityscapes": ("leftImg8bit/train/ulm/ulm_1_leftImg8bit.png", "gtFine/train/ulm/ulm_1_gtFine_labelIds.png"),
    "camvid": ("train/a.png", "trainannot/a.png"),
    "idda": ("T01/RGB/@1.jpg", "T01/Semantic/@1.png"),
    "carla": ("train/CameraRGB/1.png", "train/CameraSeg/1.png"),
    "folder": ("images/town/1.png", "labels/town/1.png"),
}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_an_unlabelled_set_neither_needs_nor_lists_nor_opens_a_label(tmp_path, kind, listed):
    """In a process whose every open, listing and stat below a label folder is recorded."""
    picture, label = LAYOUTS[kind]
    write(tmp_path / picture, frame())
    write(tmp_path / label, b"poison")
    (tmp_path / "l.txt").write_text(f"{picture} {label}\n")
    address = f"{kind}:{tmp_path}" + ("?list=l.txt" if listed else "")
    program = f"""
        import os, pathlib, sys
        poison = {str((tmp_path / label).parent)!r}
        touched = []
        def watch(event, args):
            if event in ("open", "os.listdir", "os.scandir") and str(args[0]).startswith(poison):
                touched.append((event, args[0]))
        sys.addaudithook(watch)
        plain = os.stat
        def stat(path, *args, **kwargs):
            if str(path).startswith(poison):
                touched.append(("stat", path))
            return plain(path, *args, **kwargs)
        os.stat = stat
        from rtda_training.readers import open_unlabelled
        data = open_unlabelled({address!r})
        assert len(data) == 1 and data.frame(0).shape == {(*HW, 3)!r}
        assert not hasattr(data, "label") and not hasattr(data, "pair") and not hasattr(data, "fingerprint")
        assert not touched, touched
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree((tmp_path / label).parent)
    assert open_unlabelled(address).frame(0).shape == (*HW, 3)
    with pytest.raises(DataError, match="label"):
        open_labelled(address)
