"""Lines around regions: where they are, and for which classes they are drawn unasked."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

import numpy as np
import pytest
from runtime.fakes import NumpyEngine
from runtime.models import tiny_spec

from rtda_runtime import Overlay, Pipeline, Result, Segmenter, open_source

Colour = Tuple[int, int, int]

ROAD, CAR = 0, 3
NAVY, PURPLE, ORANGE = (0, 0, 142), (128, 64, 128), (250, 170, 30)  # RGB
DARK, GREY = (25, 25, 25), (110, 110, 110)


def scene(height: int = 200, width: int = 320) -> np.ndarray:
    """uint8 mask: a car of 80 x 60 pixels on the road, its upper left corner at row 60, column 100."""
    mask = np.full((height, width), ROAD, np.uint8)
    mask[60:120, 100:180] = CAR
    return mask


def drawn(car: Colour, ground: Colour, outline: Optional[bool] = None, road: Colour = PURPLE) -> np.ndarray:
    palette = list(tiny_spec().palette)
    palette[ROAD], palette[CAR] = road, car
    frame = np.full((*scene().shape, 3), ground[::-1], np.uint8)
    return Overlay(tiny_spec(palette=tuple(palette)), legend=False, outline=outline).draw(frame, scene())


def has_line(picture: np.ndarray) -> bool:
    return bool((picture == 255).all(axis=2).any())


@pytest.mark.parametrize(
    ("car", "ground", "road", "line"),
    [
        (NAVY, DARK, PURPLE, True),  # a navy car on a dark road
        (ORANGE, DARK, PURPLE, False),
        (ORANGE, ORANGE, PURPLE, True),  # the colour of what is below it: a sky-blue sky on the sky
        (NAVY, GREY, NAVY, True),  # two classes of one colour
    ],
)
def test_regions_that_are_hard_to_see_get_a_line_unasked(car: Colour, ground: Colour, road: Colour, line: bool) -> None:
    assert has_line(drawn(car, ground, road=road)) is line
    assert not has_line(drawn(car, ground, False, road)) and has_line(drawn(car, ground, True, road))


def test_the_line_is_white_with_black_beside_it_and_nothing_else_changes() -> None:
    plain, lined = drawn(ORANGE, GREY, False), drawn(ORANGE, GREY, True)
    white, black = (lined == 255).all(axis=2), (lined == 0).all(axis=2)
    edge = scene()
    right = np.pad(edge[:, 1:] != edge[:, :-1], ((0, 0), (0, 1)))
    below = np.pad(edge[1:] != edge[:-1], ((0, 1), (0, 0)))
    np.testing.assert_array_equal(white, right | below)
    assert black[60, 100] and black[90, 180] and not black[90, 99]
    np.testing.assert_array_equal((plain != lined).any(axis=2), white | black)


def test_a_line_stays_until_it_is_clearly_not_needed() -> None:
    overlay, mask = Overlay(tiny_spec(palette=((128, 64, 128),) * 3 + (NAVY,) * 2), legend=False), scene()

    def line_where_the_ground_is(grey: int) -> bool:
        return has_line(overlay.draw(np.full((*mask.shape, 3), grey, np.uint8), mask))

    dark = [line_where_the_ground_is(grey) for grey in (20, 255, 20)]
    assert dark == [True, False, True] or dark == [True, True, True]


def test_a_mask_of_one_row_or_one_class_has_no_line() -> None:
    overlay = Overlay(tiny_spec(), legend=False, outline=True)
    for shape in ((1, 40), (40, 1), (40, 40)):
        assert not has_line(overlay.draw(np.full((*shape, 3), 100, np.uint8), np.zeros(shape, np.uint8)))


def test_pixels_without_a_class_are_no_reason_for_a_line() -> None:
    mask = scene()
    mask[mask == CAR] = 255
    spec = tiny_spec(palette=(ORANGE, *tiny_spec().palette[1:]))
    frame = np.full((*mask.shape, 3), DARK, np.uint8)
    assert not has_line(Overlay(spec, legend=False).draw(frame, mask))


def result(**changes: object) -> Result:
    frame = np.full((*scene().shape, 3), 100, np.uint8)
    made = Result(frame, scene(), captured_ns=0, sequence=0, dropped=0, timing={"age": 821.0}, spec=tiny_spec())
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_recording_is_stamped_with_no_age() -> None:
    recorded, live = result(live=False), result()
    ageless = Overlay(tiny_spec()).draw(recorded.frame, recorded.mask)
    np.testing.assert_array_equal(Overlay(tiny_spec()).draw_result(recorded), ageless)
    assert (Overlay(tiny_spec()).draw_result(live) != ageless).any()


@pytest.mark.parametrize(("rate", "live"), [(0, False), (200, True)])
def test_results_say_whether_their_source_is_live(rate: int, live: bool) -> None:
    source = open_source(f"test://bars?fps={rate}&frames=2&size=96x64")
    with Pipeline(Segmenter(NumpyEngine()), source) as pipeline:
        assert {given.live for given in pipeline} == {live}


def test_plot_gives_the_overlaid_frame_as_an_array_of_its_own() -> None:
    given = result(live=False)
    picture = given.plot(alpha=0.3, legend=False, outline=True)
    assert picture.dtype == np.uint8 and picture.shape == (*scene().shape, 3)
    expected = Overlay(tiny_spec(), 0.3, legend=False, outline=True).draw(given.frame, given.mask)
    np.testing.assert_array_equal(picture, expected)
    assert not np.shares_memory(picture, given.plot()) and (given.frame == 100).all()
