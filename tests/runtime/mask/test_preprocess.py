from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.models import tiny_spec

from rtda_deploy.errors import FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.mask.preprocess import Preprocessor, content_box, network_input, preprocess

RTDA = {
    "channel_order": "bgr",
    "pixel_scale": 1.0,
    "mean": (104.007, 116.669, 122.679),
    "std": (1.0, 1.0, 1.0),
}


def _frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _smooth_frame(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)


def _bilinear(picture: np.ndarray, size_hw: Tuple[int, int]) -> np.ndarray:
    """Half-pixel-centre bilinear resize of (H, W, 3) in float64."""
    for axis, target in enumerate(size_hw):
        size = picture.shape[axis]
        at = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        upper = np.minimum(low + 1, size - 1)
        picture = np.take(picture, low, axis) * (1 - share) + np.take(picture, upper, axis) * share
    return picture


def _reference(frame: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """The contract of ModelSpec, said in float64."""
    height, width = spec.size_hw
    top, left, rows, columns = content_box(frame.shape[:2], spec)
    small = _bilinear(frame.astype(np.float64), (rows, columns))
    ordered = small[:, :, ::-1] if spec.channel_order == "rgb" else small
    normalised = (ordered * spec.pixel_scale - np.array(spec.mean)) / np.array(spec.std)
    whole = np.zeros((height, width, 3))  # zero is the mean
    whole[top : top + rows, left : left + columns] = normalised
    return whole.transpose(2, 0, 1)[None]


def _result(frame: np.ndarray, spec: ModelSpec) -> np.ndarray:
    out = np.full((1, 3, *spec.size_hw), np.nan, np.float32)
    preprocess(frame, spec, out)
    return out


@pytest.mark.parametrize("changes", [{}, {"channel_order": "bgr"}, RTDA, {**RTDA, "channel_order": "rgb"}])
def test_every_pixel_is_normalised_as_the_spec_says(changes: Any) -> None:
    spec = tiny_spec(**changes)
    frame = _frame(*spec.size_hw)
    expected = _reference(frame, spec)
    # float32 rounding of values up to about 150
    np.testing.assert_allclose(_result(frame, spec), expected, rtol=1e-6, atol=1e-6)


def test_rtda_checkpoints_get_bgr_0_to_255_minus_their_mean() -> None:
    spec = tiny_spec(**RTDA)
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:] = (10, 20, 30)  # blue, green, red
    np.testing.assert_allclose(_result(frame, spec)[0, :, 5, 7], [10 - 104.007, 20 - 116.669, 30 - 122.679], rtol=1e-6)


@pytest.mark.parametrize("size_hw", [(64, 96), (48, 80), (200, 130)])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("kind", ["uint8", "pixels"])
def test_a_network_that_takes_pixels_gets_the_resized_frame_and_nothing_else(
    kind: str, layout: str, size_hw: Tuple[int, int]
) -> None:
    cv2 = pytest.importorskip("cv2")
    spec = tiny_spec(input=kind, layout=layout)
    whole = _frame(size_hw[0] + 4, size_hw[1] + 6)
    frame = whole[2:-2, 3:-3]  # a part of another one, as --region gives
    out = network_input(spec)
    prepare = Preprocessor(spec)
    for shown in (frame[::-1], frame):  # what was there before does not matter
        assert prepare(shown, out) == (0, 0, 64, 96)
    expected = cv2.resize(np.ascontiguousarray(frame), (96, 64))
    np.testing.assert_array_equal(out[0] if layout == "nhwc" else out[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("wrong", [{"input": "uint8"}, {"input": "uint8", "layout": "nhwc"}, {}])
def test_memory_of_another_kind_of_network_is_refused(wrong: Any) -> None:
    spec = tiny_spec(input="pixels", layout="nhwc")
    with pytest.raises(FrameError, match=r"expected C-contiguous float32 \(1, 64, 96, 3\)"):
        preprocess(_frame(64, 96), spec, network_input(tiny_spec(**wrong)))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("size_hw", [(48, 64), (100, 333), (128, 192), (63, 95), (540, 96)])
def test_resizing_is_bilinear_between_pixel_centres(size_hw: Tuple[int, int], resize: str) -> None:
    spec = tiny_spec(resize=resize, pixel_scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    frame = _smooth_frame(*size_hw)
    # OpenCV rounds the resized pixel to uint8 after 11-bit weights: at most one grey level
    assert np.abs(_result(frame, spec) - _reference(frame, spec)).max() <= 1.0


_COLOURS = st.tuples(*[st.floats(0.0, 255.0, width=32)] * 3)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_is_the_resized_frame_normalised_in_float64(data: st.DataObject) -> None:
    """Whatever the sizes, orders, means: what is in float32 differs from the contract by its rounding only."""
    import cv2

    side = st.integers(1, 140)
    scale = data.draw(st.sampled_from([1.0, 1 / 255]))
    spec = tiny_spec(
        size_hw=(8 * data.draw(st.integers(1, 12)), 8 * data.draw(st.integers(1, 12))),
        channel_order=data.draw(st.sampled_from(["rgb", "bgr"])),
        resize=data.draw(st.sampled_from(["stretch", "letterbox"])),
        interpolation=data.draw(st.sampled_from(["linear", "area", "cubic", "nearest"])),
        pixel_scale=scale,
        mean=tuple(value * scale for value in data.draw(_COLOURS)),
        std=tuple(scale * data.draw(st.floats(0.5, 255.0)) for _ in range(3)),
    )
    prepare = Preprocessor(spec)
    for seed in range(2):  # the second frame finds the buffers as the first left them
        frame = _frame(data.draw(side), data.draw(side), seed)
        out = np.full((1, 3, *spec.size_hw), np.nan, np.float32)
        top, left, rows, columns = prepare(frame, out)
        flag = getattr(cv2, f"INTER_{spec.interpolation.upper()}")
        small = cv2.resize(frame, (columns, rows), interpolation=flag).reshape(rows, columns, 3)
        ordered = small[:, :, ::-1] if spec.channel_order == "rgb" else small
        whole = np.zeros((*spec.size_hw, 3))
        inside = (ordered.astype(np.float64) * spec.pixel_scale - np.array(spec.mean)) / np.array(spec.std)
        whole[top : top + rows, left : left + columns] = inside
        # rounding once to float32: 2^-24 of the value, coarser only below the smallest normal one
        np.testing.assert_allclose(out[0], whole.transpose(2, 0, 1), rtol=2.0**-23, atol=1e-38)
        assert (top, left, rows, columns) == content_box(frame.shape[:2], spec)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 500), (500, 1), (4000, 8000)])
def test_frames_of_any_size_work(size_hw: Tuple[int, int]) -> None:
    for resize in ("stretch", "letterbox"):
        assert np.isfinite(_result(np.full((*size_hw, 3), 90, np.uint8), tiny_spec(resize=resize))).all()


@pytest.mark.parametrize("interpolation", ["linear", "area", "cubic", "nearest"])
def test_a_plain_colour_stays_itself_under_every_interpolation(interpolation: str) -> None:
    spec = tiny_spec(interpolation=interpolation, pixel_scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_array_equal(_result(np.full((333, 77, 3), 90, np.uint8), spec), 90.0)


def test_nearest_invents_no_values() -> None:
    spec = tiny_spec(interpolation="nearest", pixel_scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    frame = (_frame(33, 47) // 128) * 200
    assert set(np.unique(_result(frame, spec))) <= {0.0, 200.0}


def test_letterbox_keeps_the_aspect_and_fills_with_the_mean() -> None:
    spec = tiny_spec(resize="letterbox")
    out = np.full((1, 3, 64, 96), np.nan, np.float32)
    top, left, rows, columns = Preprocessor(spec)(np.full((10, 10, 3), 255, np.uint8), out)
    assert (top, left, rows, columns) == (0, 16, 64, 64)
    assert (out[..., :16] == 0).all() and (out[..., 80:] == 0).all()
    assert (out[..., 16:80] > 1).all()


def test_a_frame_of_another_shape_leaves_nothing_of_the_one_before() -> None:
    spec = tiny_spec(resize="letterbox")
    prepare = Preprocessor(spec)
    kept = np.empty((1, 3, 64, 96), np.float32)
    for size_hw in ((64, 96), (10, 10), (5, 50)):
        prepare(_frame(*size_hw), kept)
        np.testing.assert_array_equal(kept, _result(_frame(*size_hw), spec))


def test_the_frame_is_not_changed() -> None:
    frame = _frame(50, 70)
    before = frame.copy()
    _result(frame, tiny_spec())
    np.testing.assert_array_equal(frame, before)


def test_slices_of_larger_pictures_are_frames_too() -> None:
    large = _frame(200, 300)
    for view in (large[10:74, 20:116], large[::2, ::3], large[:64, :96, ::-1]):
        np.testing.assert_array_equal(_result(view, tiny_spec()), _result(view.copy(), tiny_spec()))


@pytest.mark.parametrize(
    ("frame", "fix"),
    [
        (np.zeros((48, 64), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((48, 64, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((48, 64, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((48, 64, 3), np.float32), "* 255"),
        (np.zeros((48, 64, 3), np.uint16), ">> 8"),
        (np.zeros((48, 64, 3), ">u2"), ">> 8"),
        (np.zeros((48, 64, 3), bool), "frame.astype(np.uint8) * 255"),
        (np.zeros((48, 64), bool), "* 255"),
        (np.zeros((48, 64, 3), np.int64), "np.clip"),
        (np.zeros((48, 64, 3), np.int64), "astype"),
        (np.zeros((0, 64, 3), np.uint8), "deliver"),
        (np.zeros((3, 48, 64), np.uint8), "transpose"),
        (np.zeros((1, 48, 64, 3), np.uint8), "one picture"),
        ([[1, 2, 3]], "asarray"),
        (None, "asarray"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_call_that_repairs_it(frame: Any, fix: str) -> None:
    with pytest.raises(FrameError, match="expected") as caught:
        _result(frame, tiny_spec())
    assert fix in caught.value.hint


def test_the_message_says_what_came() -> None:
    with pytest.raises(FrameError, match=r"expected uint8 \(H, W, 3\) BGR, got uint8 \(48, 64\)"):
        _result(np.zeros((48, 64), np.uint8), tiny_spec())


@pytest.mark.parametrize(
    "out",
    [
        np.empty((1, 3, 64, 96)),
        np.empty((1, 3, 64, 64), np.float32),
        np.empty((1, 3, 96, 64), np.float32).swapaxes(2, 3),
    ],
)
def test_a_wrong_out_is_refused(out: np.ndarray) -> None:
    with pytest.raises(FrameError, match="out is"):
        preprocess(_frame(64, 96), tiny_spec(), out)
