"""What PyAV decodes as it is to be shown: 8 bits, BGR, upright. Films, streams and recordings all go through here."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtda_runtime.sources.ffmpeg import pyav

__all__ = ["ShownPictures"]


class ShownPictures:
    """Turns decoded pictures of one video into what is shown."""

    def __init__(self) -> None:
        self._reformatter: Any = pyav().video.reformatter.VideoReformatter()

    def image(self, picture: Any) -> np.ndarray:
        """The same as :meth:`view`, C-contiguous and the caller's own."""
        shown = self.view(picture)
        own = picture.format.name != "bgr24"  # what is converted has memory of its own, to which the array refers
        return shown if own and shown.flags.c_contiguous else np.array(shown, order="C")

    def view(self, picture: Any) -> np.ndarray:
        """uint8 (H, W, 3) BGR, turned as the video says, as a view.

        Args:
            picture: An ``av.VideoFrame`` of any pixel format; of more than 8 bits the upper ones count.
        """
        plane = self._reformatter.reformat(picture, format="bgr24").planes[0]
        width, height = picture.width, picture.height
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return _upright(rows[:height, : width * 3].reshape(height, width, 3), picture)


def _upright(image: np.ndarray, picture: Any) -> np.ndarray:
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
