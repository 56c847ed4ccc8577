"""``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` to BGR frames: of bags and of ROS nodes, without ROS.

The classes have the fields of the messages, the same in ROS 1 and ROS 2 but for the names of the stamp's two parts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_deploy.pictures.decode import checked_picture, decode_bgr
from rtda_runtime._opencv import opencv

__all__ = [
    "CompressedMessage",
    "Header",
    "ImageMessage",
    "frame_from_compressed",
    "frame_from_image",
]


class _Layout(NamedTuple):
    """How pixels lie in memory.

    Attributes:
        pixel_bytes: Bytes from one pixel of a row to the next.
        conversion: Of OpenCV, to BGR; empty: it is BGR.
        multiple_wh: Colours are shared by so many pixels, of which width and height are multiples.
        planes: Rows of colours follow the rows of brightness, half as many.
    """

    pixel_bytes: int
    conversion: str
    multiple_wh: Tuple[int, int] = (1, 1)
    planes: bool = False


# 8UCn is what cv_bridge writes for a picture of unnamed meaning. ROS names a Bayer pattern by its first two rows, as
# OpenCV's long names do; yuv422 is U Y V Y (named uyvy since ROS 2 Jazzy), yuv422_yuy2 is Y U Y V.
# Source: sensor_msgs/image_encodings.hpp.
_ENCODINGS: Dict[str, _Layout] = {
    "bgr8": _Layout(3, ""),
    "8UC3": _Layout(3, ""),
    "rgb8": _Layout(3, "COLOR_RGB2BGR"),
    "bgra8": _Layout(4, "COLOR_BGRA2BGR"),
    "8UC4": _Layout(4, "COLOR_BGRA2BGR"),
    "rgba8": _Layout(4, "COLOR_RGBA2BGR"),
    "mono8": _Layout(1, "COLOR_GRAY2BGR"),
    "8UC1": _Layout(1, "COLOR_GRAY2BGR"),
    "bayer_rggb8": _Layout(1, "COLOR_BayerRGGB2BGR"),
    "bayer_bggr8": _Layout(1, "COLOR_BayerBGGR2BGR"),
    "bayer_gbrg8": _Layout(1, "COLOR_BayerGBRG2BGR"),
    "bayer_grbg8": _Layout(1, "COLOR_BayerGRBG2BGR"),
    "yuv422": _Layout(2, "COLOR_YUV2BGR_UYVY", (2, 1)),
    "uyvy": _Layout(2, "COLOR_YUV2BGR_UYVY", (2, 1)),
    "yuv422_yuy2": _Layout(2, "COLOR_YUV2BGR_YUY2", (2, 1)),
    "yuyv": _Layout(2, "COLOR_YUV2BGR_YUY2", (2, 1)),
    "nv12": _Layout(1, "COLOR_YUV2BGR_NV12", (2, 2), planes=True),
    "nv21": _Layout(1, "COLOR_YUV2BGR_NV21", (2, 2), planes=True),
}
_DEEP = "more than 8 bits a channel are depth or raw sensor data"
_NAMED = "bgr8, rgb8, mono8, bgra8, rgba8, 8UC1, 8UC3, 8UC4, bayer_*8, yuv422, yuv422_yuy2, nv12, nv21"


@dataclasses.dataclass(frozen=True)
class Header:
    """``std_msgs/Header``: when and in which coordinate frame. Copied from the input to every output."""

    sec: int
    nanosec: int
    frame_id: str

    @property
    def stamp_ns(self) -> int:
        """The stamp in nanoseconds."""
        return self.sec * 1_000_000_000 + self.nanosec


@dataclasses.dataclass(frozen=True, eq=False)
class ImageMessage:
    """``sensor_msgs/Image``. ``data`` is anything with a buffer: bytes, ``array.array``, an array of uint8."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclasses.dataclass(frozen=True, eq=False)
class CompressedMessage:
    """``sensor_msgs/CompressedImage``."""

    header: Header
    format: str
    data: Any


def frame_from_image(message: ImageMessage) -> np.ndarray:
    """A frame uint8 (H, W, 3) BGR, C-contiguous; for bgr8 without padding it is a read-only view of the message.

    ``step`` may be larger than a row (padding), and the last row may lack its padding. ``is_bigendian`` says nothing
    about pixels of one byte.

    Raises:
        FrameError: If the encoding has more than 8 bits or is not known, or size, step and data do not fit.
    """
    layout = _ENCODINGS.get(message.encoding)
    if layout is None:
        deep = any(bits in message.encoding for bits in ("16", "32", "64"))
        raise FrameError(
            f"image has encoding {message.encoding!r}",
            why=_DEEP if deep else "",
            hint=f"known: {_NAMED}; image_proc and cv_bridge convert others",
        )
    pixels = _pixels(message, layout)
    if layout.conversion:
        cv2: Any = opencv("to convert camera images")
        frame: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, layout.conversion))
        return frame
    frame = np.ascontiguousarray(pixels)
    frame.flags.writeable = False
    return frame


def frame_from_compressed(message: CompressedMessage) -> np.ndarray:
    """A frame uint8 (H, W, 3) BGR from a JPEG or PNG of 8 bits, turned as EXIF says.

    Raises:
        FrameError: If it is depth or raw sensor data, is no picture that OpenCV reads, or is not whole.
    """
    if "compressedDepth" in message.format:
        raise FrameError("image is compressedDepth", hint="take the compressed topic of the colour camera")
    content = bytes(message.data)
    name = f"compressed image of {len(content)} bytes, format {message.format!r},"
    cv2: Any = opencv("to decode camera images")
    try:
        deep = (checked_picture(content, name, FrameError).bits or 8) > 8
        picture: Optional[np.ndarray] = None if deep else decode_bgr(cv2, content, name, FrameError)
    except FrameError as err:  # its own hint is about files
        hint = "JPEG and PNG are known; does the camera's driver write whole pictures?"
        raise FrameError(err.message, why=err.why, hint=hint) from err
    if picture is None:
        raise FrameError(f"{name} has 16 bits", why=_DEEP, hint="image_proc and cv_bridge convert it to 8 bits")
    return picture


def _pixels(message: ImageMessage, layout: _Layout) -> np.ndarray:
    """A view of the message's data: uint8 (H, W, bytes of a pixel), or (rows, W) where that is one."""
    height, width, row = message.height, message.width, message.width * layout.pixel_bytes
    rows = height + height // 2 if layout.planes else height
    data = np.frombuffer(message.data, np.uint8)
    needed = message.step * (rows - 1) + row
    shown = f"image is {width}x{height} {message.encoding} with step {message.step} and {data.size} bytes"
    if height < 1 or width < 1 or message.step < row or data.size < needed:
        raise FrameError(
            shown,
            why=f"such a picture has a step of at least {row} and at least {max(0, needed)} bytes",
            hint="does the camera's driver fill every field of the message?",
        )
    if width % layout.multiple_wh[0] or height % layout.multiple_wh[1]:
        of_width, of_height = layout.multiple_wh
        raise FrameError(
            shown,
            why=f"its width is a multiple of {of_width}, its height of {of_height}",
            hint="choose another size in the camera's driver",
        )
    strides = (message.step, layout.pixel_bytes, 1)
    pixels = np.lib.stride_tricks.as_strided(data, (rows, width, layout.pixel_bytes), strides, writeable=False)
    return pixels[..., 0] if layout.pixel_bytes == 1 else pixels
