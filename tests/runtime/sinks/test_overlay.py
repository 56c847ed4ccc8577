from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from runtime.models import PALETTE, tiny_spec

from rtda_deploy.errors import ConfigError, FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime import Overlay, Result, colorize


def _mask(height: int = 540, width: int = 960) -> np.ndarray:
    """Class 3 (car) on the right quarter, class 0 (road) elsewhere."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width * 3 // 4 :] = 3
    return mask


def _grey(height: int = 540, width: int = 960) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_masks_get_the_palettes_colours_in_opencvs_order() -> None:
    picture = colorize(np.arange(6, dtype=np.uint8).reshape(1, 6), PALETTE)
    for index, colour in enumerate(PALETTE):
        assert tuple(picture[0, index, ::-1]) == colour
    assert picture[0, 5].tolist() == [0, 0, 0]


def test_views_of_masks_can_be_coloured() -> None:
    mask = _mask(48, 64)
    np.testing.assert_array_equal(colorize(mask[::2, ::2], PALETTE), colorize(mask, PALETTE)[::2, ::2])


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_mask_and_frame_are_blended(alpha: float) -> None:
    picture = Overlay(tiny_spec(), alpha, legend=False).draw(_grey(), _mask())
    for column, colour in ((10, PALETTE[0]), (950, PALETTE[3])):
        expected = (1 - alpha) * 100 + alpha * np.array(colour[::-1])
        assert np.abs(picture[500, column] - expected).max() <= 0.5


def test_pixels_without_a_class_show_the_frame() -> None:
    mask = np.full((540, 960), 255, np.uint8)
    np.testing.assert_array_equal(Overlay(tiny_spec()).draw(_grey(), mask), _grey())


def _swatches(picture: np.ndarray, spec: ModelSpec) -> Any:
    """Per class the topmost row where the legend shows its pure colour, which blending gives nowhere else."""
    rows = {}
    for name, colour in zip(spec.class_names, spec.palette):
        pure = (picture[:, :200] == colour[::-1]).all(axis=2).sum(axis=1)
        found = np.flatnonzero(pure >= 4)  # a swatch's row; the soft edge of a letter may have its colour too
        if found.size:
            rows[name] = int(found[0])
    return rows


@pytest.mark.parametrize("size_hw", [(540, 960), (256, 512), (1080, 1920), (480, 640)])
def test_legend_lists_the_classes_seen_largest_first(size_hw: Any) -> None:
    spec = tiny_spec()
    mask = _mask(*size_hw)
    mask[: size_hw[0] // 8] = 2
    rows = _swatches(Overlay(spec).draw(_grey(*size_hw), mask), spec)
    assert sorted(rows, key=lambda name: rows[name]) == ["road", "car", "sky"]


def test_legend_of_many_classes_stays_short() -> None:
    spec = tiny_spec(
        class_names=tuple(f"class {index}" for index in range(40)),
        palette=tuple((200, 3 * index, 250 - index) for index in range(40)),
    )
    mask = (np.arange(540 * 960) % 40).astype(np.uint8).reshape(540, 960)
    rows = _swatches(Overlay(spec).draw(_grey(), mask), spec)
    assert len(rows) == 11  # and a line that says how many more there are
    assert max(rows.values()) < 540 // 2


def test_fps_and_age_are_written_into_the_upper_right_corner() -> None:
    overlay = Overlay(tiny_spec(), legend=False)
    plain = overlay.draw(_grey(), _mask())
    changed = (overlay.draw(_grey(), _mask(), fps=29.97, age_ms=41.0) != plain).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows.max() < 540 // 6 and columns.min() > 960 * 3 // 4


@pytest.mark.parametrize("size_hw", [(1, 1), (8, 8), (64, 64), (32, 2000), (2000, 32)])
def test_tiny_and_narrow_frames_can_be_drawn(size_hw: Any) -> None:
    picture = Overlay(tiny_spec()).draw(_grey(*size_hw), _mask(*size_hw), fps=1.0, age_ms=2.0)
    assert picture.shape == (*size_hw, 3)


def test_frame_and_mask_are_not_changed_and_out_is_used() -> None:
    frame, mask = _grey(), _mask()
    out = np.empty_like(frame)
    assert Overlay(tiny_spec()).draw(frame, mask, out=out) is out
    np.testing.assert_array_equal(frame, _grey())
    np.testing.assert_array_equal(mask, _mask())


def test_results_are_drawn_with_their_age() -> None:
    result = Result(_grey(), _mask(), 0, 0, 0, {"age": 12.0}, tiny_spec())
    overlay = Overlay(tiny_spec())
    np.testing.assert_array_equal(overlay.draw_result(result), overlay.draw(_grey(), _mask(), age_ms=12.0))


def test_pictures_of_results_are_valid_while_held_and_their_memory_is_used_again() -> None:
    result = Result(_grey(), _mask(), 0, 0, 0, {}, tiny_spec(), compared=_mask())
    overlay = Overlay(tiny_spec())
    first, second = overlay.draw_result(result), overlay.draw_result(result)
    assert first.shape == (540, 1920, 3) and not np.shares_memory(first, second)
    addresses = {first.ctypes.data, second.ctypes.data}
    del first, second
    between = [np.empty((540, 1920, 3), np.uint8) for _ in range(3)]  # takes what was freed
    assert between and overlay.draw_result(result).ctypes.data in addresses


def test_names_beyond_ascii_do_not_stop_it() -> None:
    spec = tiny_spec(class_names=("Straße", "建物", "sky", "car", "vegetation"))
    Overlay(spec).draw(_grey(), _mask())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="alpha"):
        Overlay(tiny_spec(), alpha=1.5)
    with pytest.raises(FrameError, match="mask is"):
        Overlay(tiny_spec()).draw(_grey(), _mask(48, 64))
    with pytest.raises(FrameError, match="grey"):
        Overlay(tiny_spec()).draw(cv2.cvtColor(_grey(), cv2.COLOR_BGR2GRAY), _mask())
