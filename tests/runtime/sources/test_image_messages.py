"""Raw images of cameras that are no BGR, each made here from a colour chart by NumPy alone."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
import pytest

from rtda_deploy.errors import FrameError
from rtda_runtime.sources.image_messages import Header, ImageMessage, frame_from_image

HEADER = Header(1, 2, "front")
PATCH = 16
COLOURS = [(30, 40, 220), (40, 200, 30), (210, 60, 40), (230, 230, 230), (20, 20, 20), (30, 200, 210)]  # BGR


def chart() -> np.ndarray:
    """Two rows of three patches, uint8 (32, 48, 3) BGR."""
    patches = np.array(COLOURS, np.uint8).reshape(2, 3, 3)
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def middles(image: np.ndarray) -> np.ndarray:
    """The colour in the middle of each patch, (6, 3)."""
    return np.array([image[y, x] for y in (8, 24) for x in (8, 24, 40)])


def mosaicked(bgr: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this pattern sees: ``rggb`` is red and green in even rows, green and blue in odd ones."""
    seen = np.zeros(bgr.shape[:2], np.uint8)
    for place, letter in enumerate(pattern):
        down, across = divmod(place, 2)
        seen[down::2, across::2] = bgr[down::2, across::2, "bgr".index(letter)]
    return seen


def yuv(bgr: np.ndarray) -> List[np.ndarray]:
    """Y, U, V of BT.601 with 16 to 235, each float (H, W)."""
    blue, green, red = (bgr[..., channel].astype(float) for channel in range(3))
    return [
        16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        128 - 0.148 * red - 0.291 * green + 0.439 * blue,
        128 + 0.439 * red - 0.368 * green - 0.071 * blue,
    ]


def packed(bgr: np.ndarray, order: str) -> np.ndarray:
    """Two bytes a pixel, (H, 2 W); ``uyvy``: U, Y of the left pixel, V, Y of the right one."""
    luma, u, v = (plane.round().astype(np.uint8) for plane in yuv(bgr))
    lumas = iter((luma[:, ::2], luma[:, 1::2]))
    parts = [{"u": u, "v": v}[letter][:, ::2] if letter != "y" else next(lumas) for letter in order]
    return np.stack(parts, axis=-1).reshape(len(bgr), -1)


def planar(bgr: np.ndarray, order: str) -> np.ndarray:
    """Brightness, then colours at half the size in both directions, (H * 3 / 2, W)."""
    luma, u, v = (plane.round().astype(np.uint8) for plane in yuv(bgr))
    colours = np.stack([{"u": u, "v": v}[letter][::2, ::2] for letter in order], axis=-1)
    return np.concatenate([luma, colours.reshape(len(bgr) // 2, -1)])


def message(rows: np.ndarray, encoding: str, size_wh: Tuple[int, int] = (48, 32), padding: int = 0) -> ImageMessage:
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return ImageMessage(HEADER, size_wh[1], size_wh[0], encoding, 0, padded.shape[1], padded.tobytes())


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_picture_has_the_colours_of_the_chart(pattern: str, padding: int) -> None:
    frame = frame_from_image(message(mosaicked(chart(), pattern), f"bayer_{pattern}8", padding=padding))
    assert frame.shape == (32, 48, 3) and np.array_equal(middles(frame), COLOURS)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_a_packed_yuv_picture_has_the_colours_of_the_chart(encoding: str, order: str, padding: int) -> None:
    frame = frame_from_image(message(packed(chart(), order), encoding, padding=padding))
    assert frame.shape == (32, 48, 3)
    assert np.abs(middles(frame).astype(int) - COLOURS).max() <= 3  # 8 bits of Y, U and V


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu")])
def test_a_planar_yuv_picture_has_the_colours_of_the_chart(encoding: str, order: str, padding: int) -> None:
    frame = frame_from_image(message(planar(chart(), order), encoding, padding=padding))
    assert frame.shape == (32, 48, 3)
    assert np.abs(middles(frame).astype(int) - COLOURS).max() <= 3


@pytest.mark.parametrize(
    ("encoding", "size_wh", "why"),
    [("yuv422", (47, 32), "its width is a multiple of 2"), ("nv12", (48, 31), "its height of 2")],
)
def test_a_size_that_cannot_share_colours_is_refused(encoding: str, size_wh: Tuple[int, int], why: str) -> None:
    rows = np.zeros((48, 96), np.uint8)
    with pytest.raises(FrameError) as caught:
        frame_from_image(message(rows, encoding, size_wh))
    assert why in caught.value.why


def test_a_plane_of_colours_that_is_missing_is_refused() -> None:
    luma = planar(chart(), "uv")[:32]
    with pytest.raises(FrameError, match="image is 48x32 nv12 with step 48 and 1536 bytes"):
        frame_from_image(message(luma, "nv12"))
