"""Class lists, protocols, and joining data sets by class name."""

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.labels import (
    CAMVID,
    CITYSCAPES,
    PROTOCOLS,
    ClassList,
    check_label,
    class_list,
    describe_join,
    join_by_name,
    join_classes,
    needs_declared_join,
    protocol_indices,
)


def test_cityscapes_has_19_classes_with_distinct_colours():
    assert CITYSCAPES.num_classes == 19
    assert len(set(CITYSCAPES.palette)) == 19
    assert CITYSCAPES.names[0] == "road" and CITYSCAPES.names[18] == "bicycle"


def test_protocols_are_the_papers_index_lists():
    assert protocol_indices(CITYSCAPES.names, 16) == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    assert protocol_indices(CITYSCAPES.names, 13) == (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
    assert [len(PROTOCOLS[k]) for k in (19, 16, 13)] == [19, 16, 13]


def test_unknown_protocol_and_missing_classes_are_refused():
    with pytest.raises(ConfigError, match="protocol 12"):
        protocol_indices(CITYSCAPES.names, 12)
    with pytest.raises(ConfigError, match="sidewalk"):
        protocol_indices(("road", "sky"), 19)


def test_joining_goes_by_name_and_ignores_what_has_no_partner():
    table = join_by_name(("sky", "rider", "tree"), ("road", "sky", "bicyclist"), {"rider": "bicyclist", "tree": ""})
    assert table[[0, 1, 2]].tolist() == [1, 2, 255]
    assert (table[3:] == 255).all()


def test_a_label_outside_the_class_list_is_named():
    label = np.zeros((4, 4), np.uint8)
    label[0, 0], label[1, 1] = 34, 255
    with pytest.raises(DataError, match=r"town/3.*34"):
        check_label(label, 19, "town/3")
    label[0, 0] = 18
    assert check_label(label, 19, "town/3") is label


@pytest.mark.parametrize("label", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)])
def test_a_label_that_is_no_single_byte_channel_is_refused(label):
    with pytest.raises(DataError, match="uint8"):
        check_label(label, 19, "x")


def test_camvid_has_11_classes_with_distinct_colours():
    assert CAMVID.num_classes == 11 == len(set(CAMVID.palette))
    assert CAMVID.names[0] == "Sky" and CAMVID.names[10] == "Bicyclist"
    assert class_list("camvid") is CAMVID and class_list("cityscapes") is CITYSCAPES
    with pytest.raises(ConfigError, match="'kitti'"):
        class_list("kitti")


JOINED = {
    "road": "Road",
    "sidewalk": "Pavement",
    "building": "Building",
    "wall": "Fence",
    "fence": "Fence",
    "pole": "Pole",
    "traffic light": "SignSymbol",
    "traffic sign": "SignSymbol",
    "vegetation": "Tree",
    "terrain": None,
    "sky": "Sky",
    "person": "Pedestrian",
    "rider": "Bicyclist",
    "car": "Car",
    "truck": "Car",
    "bus": "Car",
    "train": "Car",
    "motorcycle": None,
    "bicycle": "Bicyclist",
}


def test_every_class_of_cityscapes_has_its_place_among_camvids():
    table = join_classes(CITYSCAPES, CAMVID)
    for index, name in enumerate(CITYSCAPES.names):
        into = JOINED[name]
        assert table[index] == (255 if into is None else CAMVID.names.index(into)), name
    assert (table[19:] == 255).all()


def test_camvids_classes_go_back_to_one_of_those_they_hold():
    back, there = join_classes(CAMVID, CITYSCAPES), join_classes(CITYSCAPES, CAMVID)
    assert [there[back[index]] for index in range(11)] == list(range(11))


def test_partners_are_found_in_any_list_that_names_them():
    mine = ClassList(("car", "Road", "gravel"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    assert join_classes(mine, CITYSCAPES)[:3].tolist() == [13, 0, 255]
    assert join_classes(mine, CAMVID)[:3].tolist() == [8, 3, 255]
    assert needs_declared_join(mine, CITYSCAPES) and not needs_declared_join(CITYSCAPES, CITYSCAPES)
    some = ClassList(CITYSCAPES.names[3:7], CITYSCAPES.palette[3:7])
    assert not needs_declared_join(CITYSCAPES, some)


def test_lists_without_anything_in_common_are_both_named():
    fruit = ClassList(("apple",), ((1, 2, 3),))
    with pytest.raises(DataError, match=r"apple \| Sky, Building"):
        join_classes(fruit, CAMVID)


def test_a_join_is_told_in_one_line():
    told = describe_join(CITYSCAPES, CAMVID)
    assert told.startswith("19 -> 11 classes: ") and "\n" not in told
    for part in ("rider + bicycle -> Bicyclist", "car + truck + bus + train -> Car", "ignored: terrain, motorcycle"):
        assert part in told
    assert "sky" not in told  # it changes nothing but its case
    assert describe_join(CAMVID, CAMVID) == "11 classes, unchanged"
    assert "without a partner: wall" in describe_join(CAMVID, CITYSCAPES)
