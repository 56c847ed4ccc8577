"""``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage`` to BGR frames, and masks back to ``sensor_msgs/Image``.

The classes have the fields of the messages, the same in ROS 1 and ROS 2 but for the names of the stamp's two parts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Tuple

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
    "image_from_array",
]

# Channels, and the OpenCV conversion to BGR. 8UCn is what cv_bridge writes for a picture of unnamed meaning.
_ENCODINGS: Dict[str, Tuple[int, str]] = {
    "bgr8": (3, ""),
    "8UC3": (3, ""),
    "rgb8": (3, "COLOR_RGB2BGR"),
    "bgra8": (4, "COLOR_BGRA2BGR"),
    "8UC4": (4, "COLOR_BGRA2BGR"),
    "rgba8": (4, "COLOR_RGBA2BGR"),
    "mono8": (1, "COLOR_GRAY2BGR"),
    "8UC1": (1, "COLOR_GRAY2BGR"),
}
_DEEP = "16-bit pictures are depth or raw sensor data"
_NAMED = "bgr8, rgb8, mono8, bgra8, rgba8"


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
    if message.encoding not in _ENCODINGS:
        raise FrameError(
            f"image has encoding {message.encoding!r}",
            why=_DEEP if "16" in message.encoding else "",
            hint=f"known: {_NAMED}; image_proc and cv_bridge convert others",
        )
    channels, conversion = _ENCODINGS[message.encoding]
    pixels = _pixels(message, channels)
    if conversion:
        cv2: Any = opencv("to convert camera images")
        frame: np.ndarray = cv2.cvtColor(pixels, getattr(cv2, conversion))
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
        raise FrameError("image is compressedDepth", hint="subscribe to the colour camera's compressed topic")
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


def image_from_array(picture: np.ndarray, header: Header) -> ImageMessage:
    """uint8 (H, W) as mono8, or uint8 (H, W, 3) BGR as bgr8; rows without padding, ``data`` is bytes.

    Raises:
        FrameError: If the array has another dtype or shape.
    """
    mono = picture.ndim == 2
    if picture.dtype != np.uint8 or not (mono or (picture.ndim == 3 and picture.shape[2] == 3)):
        raise FrameError(
            f"array is {picture.dtype} {picture.shape}, expected uint8 (H, W) or (H, W, 3)",
            hint="np.ascontiguousarray(picture[..., :3]) drops an alpha channel; scale other types to 0..255 first",
        )
    height, width = picture.shape[:2]
    return ImageMessage(
        header=header,
        height=height,
        width=width,
        encoding="mono8" if mono else "bgr8",
        is_bigendian=0,
        step=width if mono else 3 * width,
        data=picture.tobytes(),
    )


def _pixels(message: ImageMessage, channels: int) -> np.ndarray:
    """A view of the message's data: uint8 (H, W, C), or (H, W) for one channel."""
    height, width, row = message.height, message.width, message.width * channels
    data = np.frombuffer(message.data, np.uint8)
    needed = message.step * (height - 1) + row
    if height < 1 or width < 1 or message.step < row or data.size < needed:
        raise FrameError(
            f"image is {width}x{height} {message.encoding} with step {message.step} and {data.size} bytes",
            why=f"such a picture has a step of at least {row} and at least {max(0, needed)} bytes",
            hint="does the camera's driver fill every field of the message?",
        )
    strides = (message.step, channels, 1)
    pixels = np.lib.stride_tricks.as_strided(data, (height, width, channels), strides, writeable=False)
    return pixels[..., 0] if channels == 1 else pixels
