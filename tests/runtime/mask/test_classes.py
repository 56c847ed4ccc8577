"""Shares, groups and regions: what planners ask of a mask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from runtime.models import tiny_spec

from rtda_deploy.cli.run.screen import Screen
from rtda_deploy.errors import ConfigError, FrameError
from rtda_runtime import Overlay, Result
from rtda_runtime.mask.groups import ClassGroups, class_shares, count_classes
from rtda_runtime.mask.regions import RegionOfInterest
from rtda_runtime.sinks.publish.messages import Messages
from rtda_runtime.sinks.view.feed import Feed

SPEC = tiny_spec(
    class_names=("road", "parking", "traffic light", "person", "sky"),
)
MASK = np.array([[0, 0, 1, 255], [4, 4, 3, 255]], np.uint8)
LEFT, LOWER = RegionOfInterest(0, 0, 0.5, 1), RegionOfInterest(0, 0.5, 1, 1)


def test_shares_are_of_the_labelled_pixels_and_in_the_specs_order() -> None:
    shares = class_shares(MASK, SPEC)
    assert list(shares) == list(SPEC.class_names)
    assert shares == pytest.approx({"road": 2 / 6, "parking": 1 / 6, "traffic light": 0, "person": 1 / 6, "sky": 2 / 6})


def test_shares_of_a_region_look_at_nothing_else() -> None:
    assert class_shares(MASK, SPEC, LEFT)["road"] == 0.5 and class_shares(MASK, SPEC, LEFT)["person"] == 0
    assert class_shares(MASK, SPEC, LOWER)["sky"] == pytest.approx(2 / 3)


def test_what_has_no_class_is_told_as_a_share_of_all_pixels() -> None:
    assert count_classes(MASK, SPEC).unlabelled == pytest.approx(2 / 8)
    assert count_classes(MASK, SPEC, LEFT).unlabelled == 0
    assert count_classes(MASK, SPEC).shares == class_shares(MASK, SPEC)
    assert count_classes(np.full((3, 3), 5, np.uint8), SPEC).unlabelled == 1, "beyond the classes"


def test_every_place_that_tells_shares_means_the_same() -> None:
    """A mask of which half has no class, as with ``--region``."""
    mask = np.full((40, 60), 255, np.uint8)
    mask[20:] = 0
    result = Result(np.zeros((40, 60, 3), np.uint8), mask, 0, 0, 0, {}, SPEC)
    assert class_shares(mask, SPEC)["road"] == 1
    published = Messages(SPEC, "x").statistics(result)
    assert (published["shares"]["road"], published["unlabelled"]) == (1, 0.5)
    feed = Feed(SPEC, stats=dict, title="x")
    feed.put(result)
    assert (feed.report()["classes"][0]["share"], feed.report()["unlabelled"]) == (1, 0.5)
    assert Overlay(SPEC)._entries(mask) == [(0, 1.0)]
    watched = SimpleNamespace(_pipeline=SimpleNamespace(latest=lambda: result))
    seen = Screen.seen(cast(Screen, watched))  # run --json
    assert (seen["shares"]["road"], seen["unlabelled"]) == (1, 0.5)


def test_a_mask_without_any_class_has_no_shares() -> None:
    assert set(class_shares(np.full((2, 2), 255, np.uint8), SPEC).values()) == {0.0}


def test_groups_join_classes_by_name_and_the_rest_is_other() -> None:
    groups = ClassGroups.parse(["drivable=road,parking", "stop = Traffic_Light , person"], SPEC)
    assert groups.names == ("drivable", "stop", "other")
    assert groups.mask(MASK).tolist() == [[0, 0, 0, 255], [2, 2, 1, 255]]
    shares = class_shares(groups.mask(MASK), groups.spec(SPEC))
    assert shares == pytest.approx({"drivable": 3 / 6, "stop": 1 / 6, "other": 2 / 6})


@settings(max_examples=50, deadline=None)
@given(mask=arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 2, 3, 4, 255])))
def test_a_group_mask_can_be_made_in_place(mask: np.ndarray) -> None:
    groups = ClassGroups.parse(["drivable=road,parking"], SPEC)
    expected = groups.mask(mask)
    again = mask.copy()
    assert groups.mask(again, out=again) is again
    np.testing.assert_array_equal(again, expected)
    assert expected.dtype == np.uint8 and ((expected == 255) == (mask == 255)).all()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "no group"),
        (["drivable"], "NAME=CLASS"),
        (["=road"], "NAME=CLASS"),
        (["drivable="], "NAME=CLASS"),
        (["drivable=raod"], "did you mean road"),
        (["drivable=zebra"], "there are road, parking"),
        (["a=road", "b=road"], "road is named twice: in a and in b"),
        (["a=road,Road"], "road is named twice: in a and in a"),
        (["a=road", "a=sky"], "group a is named twice"),
        (["other=road"], "every other class"),
    ],
)
def test_groups_that_make_no_sense_are_refused_with_the_reason(texts: list, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClassGroups.parse(texts, SPEC)
    assert words in f"{caught.value.message} {caught.value.hint}" and caught.value.hint


def test_a_region_is_typed_as_fractions_and_fits_any_size() -> None:
    region = RegionOfInterest.parse("0,0.5,1,1")
    assert region == LOWER and str(region) == "0,0.5,1,1"
    assert region.slices((480, 640)) == (slice(240, 480), slice(0, 640))
    tiny = RegionOfInterest(0.99, 0.99, 1, 1).slices((2, 2))
    assert [part.stop - part.start for part in tiny] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0,0,1",
        "0,0,1,1,1",
        "a,0,1,1",
        "0.5,0,0.5,1",
        "0,1,1,0.5",
        "-1,0,1,1",
        "0,0,640,480",
        "nan,0,1,1",
    ],
)
def test_regions_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"region|part of a picture"):
        RegionOfInterest.parse(text)


def test_masks_of_another_kind_are_refused() -> None:
    with pytest.raises(FrameError, match="uint8"):
        class_shares(MASK.astype(np.int64), SPEC)
    with pytest.raises(FrameError, match="uint8"):
        ClassGroups.parse(["a=road"], SPEC).mask(np.zeros((2, 2, 3), np.uint8))


def test_groups_that_name_every_class_leave_no_other() -> None:
    groups = ClassGroups.parse(["free=road,parking", "not=traffic light,person,sky"], SPEC)
    assert groups.names == ("free", "not")
    assert groups.spec(SPEC).class_names == ("free", "not")
    assert groups.spec(SPEC).palette == (SPEC.palette[0], SPEC.palette[2])
