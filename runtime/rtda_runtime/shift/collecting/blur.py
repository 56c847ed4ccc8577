"""Classes made unrecognisable in a picture, such as people and cars, before it is written."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from rtda_runtime._opencv import opencv

__all__ = ["blur_classes"]

_CELLS = 48  # the picture's shorter side has so many cells: a face of 5 % of the height is two of them
_MARGIN = 1 / 64  # of the shorter side, around each region: masks of 1/8 resolution end too early


def blur_classes(picture: np.ndarray, masks: Sequence[np.ndarray], classes: Sequence[int]) -> np.ndarray:
    """A copy of the picture in which these classes, with a margin around them, are cells of one mean colour.

    Mean colours of cells, and no soft blur: what is averaged over a cell cannot be computed back. What the masks miss
    is not blurred.

    Args:
        picture: uint8 (H, W, 3) BGR; not modified.
        masks: uint8 (H, W) each; a pixel is blurred if any of them calls it one of the classes.
        classes: Class indices.
    """
    cv2: Any = opencv("to blur classes")
    hidden = np.zeros(picture.shape[:2], np.uint8)
    table = np.isin(np.arange(256), list(classes)).astype(np.uint8)
    for mask in masks:
        hidden |= cv2.LUT(mask, table)
    if not hidden.any():
        return picture.copy()
    height, width = picture.shape[:2]
    margin = max(1, round(min(height, width) * _MARGIN))
    grown = cv2.dilate(hidden, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    cell = max(2, round(min(height, width) / _CELLS))
    cells_wh = (max(1, round(width / cell)), max(1, round(height / cell)))
    small = cv2.resize(picture, cells_wh, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.where(grown[..., None].astype(bool), coarse, picture)
