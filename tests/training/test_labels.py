"""Class lists, protocols, and joining data sets by class name."""

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, DataError
from rtda_training.labels import CITYSCAPES, PROTOCOLS, check_label, join_by_name, protocol_indices


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
