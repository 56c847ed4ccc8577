"""Pictures turned as their recording says: a telephone that was held upright films lying pictures and a note."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["upright"]


def upright(image: np.ndarray, picture: Any) -> np.ndarray:
    """A view of ``image`` (H, W, 3) as it is to be shown: turned by quarters and mirrored, by the display matrix.

    Args:
        picture: The ``av.VideoFrame`` that it comes from.

    Source: libavutil/display.h of FFmpeg, ISO/IEC 14496-12 (``tkhd``): (x, y) is shown at (ax + cy, bx + dy).
    """
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = (int(number) for number in np.frombuffer(matrix, np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
