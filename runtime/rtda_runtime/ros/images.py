"""Masks and overlays to ``sensor_msgs/Image``."""

from __future__ import annotations

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_runtime.sources.image_messages import Header, ImageMessage

__all__ = ["image_from_array"]


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
