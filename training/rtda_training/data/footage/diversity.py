"""What a frame looks like as a whole, and the frames of many that differ most."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from rtda_deploy.optional import require

__all__ = ["describe", "most_diverse"]

_ROWS, _COLUMNS = 4, 6  # of the grid that colours and edges are averaged in
_CELL_PX = 16
_SIZE_WH = (_COLUMNS * _CELL_PX, _ROWS * _CELL_PX)
_COLOUR, _EDGE = 32.0, 4.0  # what a usual difference is divided by, that colours and edges count alike
_BINS = 6  # of the direction of edges, 30 degrees each


def describe(small: np.ndarray) -> np.ndarray:
    """Colours and edges of a frame, averaged in a grid of 4x6.

    Args:
        small: uint8 (h, w, 3) BGR, about 160 pixels wide.

    Returns:
        float32 (216,): for each cell lightness and two colours (Lab), and the strength of edges in six directions.
    """
    cv2: Any = require("cv2", extra="training")
    lab = cv2.cvtColor(cv2.resize(small, _SIZE_WH, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2Lab)
    grey = lab[..., 0].astype(np.float32)
    strength, angle = cv2.cartToPolar(
        cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)
    )
    bins = (angle * np.float32(_BINS / np.pi)).astype(np.int64) % _BINS  # of 180 degrees: an edge has no sign
    cells = np.arange(_ROWS).repeat(_CELL_PX)[:, None] * _COLUMNS + np.arange(_COLUMNS).repeat(_CELL_PX)
    count = _ROWS * _COLUMNS * _BINS
    edges = np.bincount((cells * _BINS + bins).ravel(), weights=strength.ravel(), minlength=count) / _CELL_PX**2
    colours = lab.reshape(_ROWS, _CELL_PX, _COLUMNS, _CELL_PX, 3).mean(axis=(1, 3), dtype=np.float64)
    return np.concatenate([colours.ravel() / _COLOUR, np.sqrt(edges) / _EDGE]).astype(np.float32)


def most_diverse(descriptors: np.ndarray, count: int) -> List[int]:
    """So many numbers of descriptors, ascending: farthest points, from the one in the middle of all.

    Args:
        descriptors: float32 (M, D).
        count: At most M.
    """
    middle = descriptors.mean(axis=0)
    chosen = [int(np.argmin(_squared(descriptors, middle)))]
    nearest = _squared(descriptors, descriptors[chosen[0]])
    while len(chosen) < count:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, _squared(descriptors, descriptors[chosen[-1]]))
        nearest[chosen] = -1.0
    return sorted(chosen)


def _squared(descriptors: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(descriptors - one).sum(axis=1))
