from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.upsampled import upsampled

from rtda_deploy.errors import EngineError, FrameError
from rtda_runtime.mask import _upsample_numba, _upsample_numpy, upsample
from rtda_runtime.mask.upsample import resize_mask, upsample_argmax


@pytest.fixture(scope="module", params=["numpy", "numba"], autouse=True)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs with both kernels."""
    if request.param == "numpy":
        chosen: Any = _upsample_numpy.fill_mask
    else:
        pytest.importorskip("numba", reason="the compiled kernel needs numba")
        chosen = _upsample_numba.fill_mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_kernel", lambda: chosen)
        yield request.param


_choose: Any = upsample._kernel.__wrapped__  # without its cache
TIE = 1e-5  # of the logits' range: below this float32 may prefer either class


def _check(mask: np.ndarray, large: np.ndarray) -> None:
    """``mask`` is the argmax of ``large``, or a class as good as the best."""
    assert mask.dtype == np.uint8 and mask.shape == large.shape[1:]
    chosen = np.take_along_axis(large, mask[None].astype(np.intp), 0)[0]
    assert (large.max(0) - chosen).max() <= TIE * np.ptp(large)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9)),
    size_hw=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    smooth=st.booleans(),
    offset=st.sampled_from([0.0, 1e4, -3e5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_resize_then_argmax(shape: Any, size_hw: Any, smooth: bool, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(shape)
    if smooth:  # large areas of one class, as real networks give
        logits[:, 1:] = logits[:, :1] + 0.2 * logits[:, 1:]
    logits = (logits + offset).astype(np.float32)
    _check(upsample_argmax(logits, size_hw), upsampled(logits, size_hw))


@pytest.mark.parametrize("size_hw", [(128, 256), (135, 240), (100, 333), (16, 32), (5, 7), (1, 1), (512, 33)])
def test_scales_whole_broken_and_downwards(size_hw: Tuple[int, int]) -> None:
    logits = np.random.default_rng(3).standard_normal((19, 16, 32)).astype(np.float32)
    _check(upsample_argmax(logits, size_hw), upsampled(logits, size_hw))


def test_it_agrees_with_opencv() -> None:
    import cv2

    coarse = np.random.default_rng(4).standard_normal((19, 8, 16)).astype(np.float32)
    logits = np.stack([cv2.resize(plane, (64, 32), interpolation=cv2.INTER_CUBIC) for plane in coarse])
    large = np.stack([cv2.resize(plane, (511, 257), interpolation=cv2.INTER_LINEAR) for plane in logits])
    mask = upsample_argmax(logits, (257, 511))
    # OpenCV weighs in float32 too: at most one pixel in ten thousand lies within that rounding
    assert (mask != large.argmax(0)).mean() <= 1e-4


def test_same_size_is_plain_argmax() -> None:
    logits = np.random.default_rng(5).standard_normal((7, 30, 40)).astype(np.float32)
    np.testing.assert_array_equal(upsample_argmax(logits, (30, 40)), logits.argmax(0))


def test_a_class_that_wins_at_no_corner_can_win_between_them() -> None:
    logits = np.zeros((3, 1, 2), np.float32)
    logits[0, 0] = (1.0, -1.0)
    logits[1, 0] = (-1.0, 1.0)
    logits[2, 0] = (0.5, 0.5)
    mask = upsample_argmax(logits, (1, 100))
    assert mask[0, 0] == 0 and mask[0, 50] == 2 and mask[0, 99] == 1


def test_one_class_and_one_pixel_work() -> None:
    np.testing.assert_array_equal(upsample_argmax(np.zeros((1, 4, 4), np.float32), (9, 9)), 0)
    assert upsample_argmax(np.array([[[1.0]], [[2.0]]], np.float32), (3, 2)).tolist() == [[1, 1], [1, 1], [1, 1]]


def test_all_255_classes_can_win() -> None:
    logits = np.eye(255, dtype=np.float32).reshape(255, 15, 17)
    np.testing.assert_array_equal(upsample_argmax(logits, (15, 17)).reshape(-1), np.arange(255))


def test_pictures_larger_than_one_band_have_no_seams() -> None:
    logits = np.random.default_rng(6).standard_normal((5, 12, 20)).astype(np.float32)
    size_hw = (301, 1000)  # NumPy's bands are 131 rows of it
    _check(upsample_argmax(logits, size_hw), upsampled(logits, size_hw))


@settings(max_examples=60, deadline=None)
@given(
    top=st.floats(0, 3), left=st.floats(0, 3), height=st.floats(2, 6), width=st.floats(2, 6),
    size_hw=st.tuples(st.integers(1, 50), st.integers(1, 50)), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_region_is_the_letterboxed_frame(
    top: float, left: float, height: float, width: float, size_hw: Any, seed: int
) -> None:
    logits = np.random.default_rng(seed).standard_normal((4, 9, 9)).astype(np.float32)
    region = (top, left, height, width)
    _check(upsample_argmax(logits, size_hw, region=region), upsampled(logits, size_hw, region))


def test_a_region_of_whole_cells_is_the_crop_of_them() -> None:
    logits = np.random.default_rng(8).standard_normal((4, 9, 12)).astype(np.float32)
    crop = np.ascontiguousarray(logits[:, 2:7, 3:12])
    np.testing.assert_array_equal(
        upsample_argmax(logits, (53, 71), region=(2.0, 3.0, 5.0, 9.0)), upsample_argmax(crop, (53, 71))
    )


def test_out_is_filled_and_given_back() -> None:
    logits = np.random.default_rng(9).standard_normal((4, 5, 6)).astype(np.float32)
    out = np.full((31, 41), 77, np.uint8)
    assert upsample_argmax(logits, (31, 41), out=out) is out
    np.testing.assert_array_equal(out, upsample_argmax(logits, (31, 41)))


def test_logits_that_are_a_view_work() -> None:
    wide = np.random.default_rng(10).standard_normal((6, 7, 8)).astype(np.float32)
    view = wide.transpose(2, 0, 1)
    np.testing.assert_array_equal(upsample_argmax(view, (20, 30)), upsample_argmax(view.copy(), (20, 30)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_error_not_a_mask(value: float) -> None:
    logits = np.zeros((3, 4, 5), np.float32)
    logits[1, 2, 3] = value
    with pytest.raises(EngineError, match="NaN or infinite") as caught:
        upsample_argmax(logits, (8, 10))
    assert "fp32" in caught.value.hint


@pytest.mark.parametrize(
    ("logits", "size_hw", "out"),
    [
        (np.zeros((4, 5), np.float32), (8, 8), None),
        (np.zeros((1, 3, 4, 5), np.float32), (8, 8), None),
        (np.zeros((0, 4, 5), np.float32), (8, 8), None),
        (np.zeros((256, 4, 5), np.float32), (8, 8), None),
        (np.zeros((3, 4, 5), np.float64), (8, 8), None),
        (np.zeros((3, 4, 5), np.float32), (0, 8), None),
        (np.zeros((3, 4, 5), np.float32), (8, 8), np.zeros((8, 9), np.uint8)),
        (np.zeros((3, 4, 5), np.float32), (8, 8), np.zeros((8, 8), np.int32)),
        (np.zeros((3, 4, 5), np.float32), (8, 8), np.zeros((8, 16), np.uint8)[:, ::2]),
    ],
)
def test_what_does_not_fit_is_refused(logits: np.ndarray, size_hw: Any, out: Any) -> None:
    with pytest.raises(FrameError):
        upsample_argmax(logits, size_hw, out=out)


def test_masks_are_resized_to_the_nearest_class() -> None:
    mask = np.array([[1, 2], [3, 4]], np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, (4, 6)), np.kron(mask, np.ones((2, 3), np.uint8)))
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), mask)
    np.testing.assert_array_equal(
        resize_mask(mask, (4, 2), region=(0.0, 1.0, 2.0, 1.0)), [[2, 2], [2, 2], [4, 4], [4, 4]]
    )


@given(size_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)), grid=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=50, deadline=None)
def test_resized_masks_take_the_cell_the_pixel_centre_lies_in(size_hw: Any, grid: Any) -> None:
    mask = np.arange(grid[0] * grid[1], dtype=np.uint8).reshape(grid)
    # Exact halves may go either way; whole-number arithmetic keeps them apart from the rest.
    rows, columns = ((2 * np.arange(n) + 1) * g // (2 * n) for n, g in zip(size_hw, grid))
    border = [((2 * np.arange(n) + 1) * g) % (2 * n) == 0 for n, g in zip(size_hw, grid)]
    sure = ~(border[0][:, None] | border[1][None])
    assert (resize_mask(mask, size_hw) == mask[rows][:, columns])[sure].all()


def test_numba_is_taken_where_it_works_and_said_to_be_broken_where_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = importlib.machinery.ModuleSpec("numba", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert _choose() is _upsample_numpy.fill_mask and not caplog.records
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setitem(sys.modules, "numba", None)
    _upsample_numba.compiled.cache_clear()
    assert _choose() is _upsample_numpy.fill_mask
    assert "numba does not load" in caplog.text


def test_a_full_disk_and_no_cache_cost_a_compilation_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    program = """
import resource, sys
import numpy as np
from rtda_runtime.mask import upsample
from rtda_runtime import upsample_argmax
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow, as on a full disk
mask = upsample_argmax(np.eye(3, dtype=np.float32).reshape(3, 1, 3), (2, 6))
sys.exit(0 if upsample.compiles() and mask[0, 0] == 0 and mask[1, 5] == 2 else 5)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
