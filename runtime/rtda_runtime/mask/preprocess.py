"""A camera frame becomes the network's input: resize, channel order, scale, mean, std - as the ModelSpec says.

A pixel has only 256 values, so ``(pixel * pixel_scale - mean) / std`` is a table of 256 floats per channel, computed
once in float64; applying it is exact and one pass over memory.

A network whose ``input`` is ``uint8`` or ``pixels`` has the rest in its graph, so that resizing is all that is left.
"""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv

__all__ = ["Preprocessor", "check_frame", "content_box", "network_input", "preprocess", "value_tables"]

_INTERPOLATION = {"linear": "INTER_LINEAR", "area": "INTER_AREA", "cubic": "INTER_CUBIC", "nearest": "INTER_NEAREST"}
_OF_OPENCV = (np.uint8, np.uint16, np.float32)  # kinds of numbers that cvtColor takes

Box = Tuple[int, int, int, int]  # top, left, height, width


def preprocess(frame: np.ndarray, spec: ModelSpec, out: np.ndarray) -> None:
    """Resize, normalise and lay out one camera frame for the network.

    For a stream of frames use :class:`Preprocessor`, which keeps its buffers and tables.

    Args:
        frame: uint8 (H, W, 3) BGR, any size; not modified.
        spec: size, order, scale, mean and std the network was trained with.
        out: As :func:`network_input` makes it, C-contiguous; overwritten in place.

    Raises:
        FrameError: If ``frame`` or ``out`` has another dtype or shape.
    """
    Preprocessor(spec)(frame, out)


def network_input(spec: ModelSpec) -> np.ndarray:
    """A network's input, all zeros: float32 (1, 3, h, w), or uint8 and (1, h, w, 3) where the spec says so."""
    return np.zeros(spec.input_shape, spec.input_dtype)


class Preprocessor:
    """:func:`preprocess` with its tables and buffers kept between frames. One thread at a time."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._cv2: Any = opencv("to resize frames")
        self._flag = getattr(self._cv2, _INTERPOLATION[spec.interpolation])
        self._tables = value_tables(spec)
        height, width = spec.size_hw
        self._resized = np.empty((height, width, 3), np.uint8)
        self._room = np.empty((3, height, width), np.uint8)  # the resized frame, a plane per colour

    def __call__(self, frame: np.ndarray, out: np.ndarray) -> Box:
        """Fill ``out``; gives the box (top, left, height, width) of ``out`` that shows the frame."""
        check_frame(frame)
        spec = self.spec
        if out.dtype != spec.input_dtype or out.shape != spec.input_shape or not out.flags.c_contiguous:
            raise FrameError(
                f"out is {out.dtype} {out.shape}, expected C-contiguous {spec.input_dtype} {spec.input_shape}",
                hint="pass engine.input_buffer",
            )
        box = content_box(frame.shape[:2], spec)
        fill = self._fill_normalised if spec.input == "float32" else self._fill_pixels
        fill(frame, out, box)
        return box

    def _fill_normalised(self, frame: np.ndarray, out: np.ndarray, box: Box) -> None:
        """Resize ``frame`` and normalise it into the box of ``out`` float32 (1, 3, h, w); the rest is the mean."""
        top, left, height, width = box
        bottom, right = top + height, left + width
        for border in (out[..., :top, :], out[..., bottom:, :], out[..., :left], out[..., right:]):
            border.fill(0.0)  # the mean, after normalising
        small = self._small(frame, height, width)
        room = self._room.reshape(-1)[: 3 * height * width].reshape(3, height, width)
        blue, green, red = self._cv2.split(small, list(room))
        ordered = (red, green, blue) if self.spec.channel_order == "rgb" else (blue, green, red)
        for plane, table, target in zip(ordered, self._tables, out[0, :, top:bottom, left:right]):
            self._cv2.LUT(plane, table, dst=target)

    def _fill_pixels(self, frame: np.ndarray, out: np.ndarray, box: Box) -> None:
        """Resize ``frame`` into ``out``, BGR as it is; such a network is not letterboxed."""
        height, width = self.spec.size_hw
        packed = self.spec.layout == "nhwc"
        if packed and out.dtype == np.uint8 and frame.shape != out.shape[1:]:
            self._cv2.resize(frame, (width, height), dst=out[0], interpolation=self._flag)
        elif packed:
            np.copyto(out[0], self._small(frame, height, width))
        elif out.dtype == np.uint8:
            self._cv2.split(self._small(frame, height, width), list(out[0]))
        else:
            np.copyto(out[0], self._small(frame, height, width).transpose(2, 0, 1))

    def _small(self, frame: np.ndarray, height: int, width: int) -> np.ndarray:
        """``frame`` resized, in memory of ours; itself where it has that size."""
        if frame.shape[:2] == (height, width):
            return frame
        small = self._resized.reshape(-1)[: height * width * 3].reshape(height, width, 3)
        self._cv2.resize(frame, (width, height), dst=small, interpolation=self._flag)
        return small


def value_tables(spec: ModelSpec) -> np.ndarray:
    """float32 (3, 256): what each pixel value of a channel becomes, in the network's channel order."""
    pixels = np.arange(256, dtype=np.float64) * spec.pixel_scale
    tables: np.ndarray = (pixels - np.asarray(spec.mean)[:, None]) / np.asarray(spec.std)[:, None]
    return tables.astype(np.float32)


def content_box(frame_hw: Tuple[int, int], spec: ModelSpec) -> Box:
    """Where in the network's input the frame lands: (top, left, height, width) in input pixels."""
    height, width = spec.size_hw
    if spec.resize == "stretch":
        return 0, 0, height, width
    scale = min(height / frame_hw[0], width / frame_hw[1])
    rows = min(height, max(1, round(frame_hw[0] * scale)))
    columns = min(width, max(1, round(frame_hw[1] * scale)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def check_frame(frame: np.ndarray) -> None:
    """Check that ``frame`` is a camera frame.

    Raises:
        FrameError: If it is not uint8 (H, W, 3) with at least one pixel, naming the call that repairs it.
    """
    if not isinstance(frame, np.ndarray):
        raise FrameError(
            f"expected a numpy array uint8 (H, W, 3) BGR, got {type(frame).__name__}", hint="np.asarray(frame)"
        )
    got = f"expected uint8 (H, W, 3) BGR, got {frame.dtype} {frame.shape}"
    if 0 in frame.shape:
        raise FrameError(
            f"{got}: the frame is empty", hint="did the camera deliver? check the picture before segmenting it"
        )
    if frame.dtype not in _OF_OPENCV:  # before the hints that cvtColor could not follow
        raise FrameError(got, hint=_dtype_hint(frame))
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        raise FrameError(f"{got}: the frame is grey", hint="cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)")
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise FrameError(f"{got}: the frame has an alpha channel", hint="cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise FrameError(
            got, hint="one picture at a time, colours last: frame.transpose(1, 2, 0) where they come first"
        )
    if frame.dtype != np.uint8:
        raise FrameError(got, hint=_dtype_hint(frame))


def _dtype_hint(frame: np.ndarray) -> str:
    kind, size = frame.dtype.kind, frame.dtype.itemsize
    if kind == "u" and size == 2:
        return "(frame >> 8).astype(np.uint8); 12 bits in 16: (frame >> 4).astype(np.uint8)"
    if kind == "f":
        return "pixels 0..1: (frame * 255).round().astype(np.uint8); pixels 0..255: frame.round().astype(np.uint8)"
    if kind == "b":
        return "frame.astype(np.uint8) * 255"
    if kind in "iu":
        return "pixels 0..255: np.clip(frame, 0, 255).astype(np.uint8)"
    return "frames are numbers: uint8, 0..255"
