"""What a frame looks like as a whole, and the frames of many that differ most."""

from __future__ import annotations

from typing import Any, List, Optional

import numpy as np

from rtda_deploy.optional import require

__all__ = ["describe", "most_diverse"]

_ROWS, _COLUMNS = 4, 6  # of the grid that colours and edges are averaged in
_CELL_PX = 16
_SIZE_WH = (_COLUMNS * _CELL_PX, _ROWS * _CELL_PX)
_COLOUR = np.array((64.0, 16.0, 16.0))  # what a usual difference of lightness and of each colour is divided by,
_EDGE = 4.0  # and of the root of the strength of edges, that all count alike
_AROUND = 3  # frames before and after that one is held against
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
    return np.concatenate([(colours / _COLOUR).ravel(), np.sqrt(edges) / _EDGE]).astype(np.float32)


def most_diverse(
    descriptors: np.ndarray,
    count: int,
    recordings: Optional[np.ndarray] = None,
    repeated: Optional[np.ndarray] = None,
) -> List[int]:
    """So many numbers of frames, ascending, that show most of what all of them show.

    Farthest points, the first the one in the middle of all, with two changes. How far a frame is counts less the less
    it resembles the frames around it in time: farthest points alone take nearly every frame with a flare, a wiper or a
    fault of the decoder first. And at the end each frame chosen gives its place to the one in the middle of those that
    it is nearest to. Measured with features of another network: docs/results/footage.md.

    Args:
        descriptors: float32 (M, D), in order of time.
        count: At most M.
        recordings: int (M,), which recording each is of; None: all of one.
        repeated: bool (M,), frames that were seen more than once, their near-duplicates being dropped: what a standing
            robot saw resembles nothing around it any more, and is no fault. None: none.
    """
    company = _company(descriptors, np.zeros(len(descriptors)) if recordings is None else recordings)
    if repeated is not None:
        company[repeated] = 1.0
    chosen = [int(np.argmin(_distance(descriptors, descriptors.mean(axis=0))))]
    nearest = _distance(descriptors, descriptors[chosen[0]])
    owner = np.zeros(len(descriptors), int)  # the number, among those chosen, of the one that is nearest
    while len(chosen) < count:
        worth = nearest * company
        worth[chosen] = -1.0  # another frame may be the very same
        chosen.append(int(np.argmax(worth)))
        distance = _distance(descriptors, descriptors[chosen[-1]])
        owner[distance < nearest] = len(chosen) - 1
        nearest = np.minimum(nearest, distance)
    owner[chosen] = np.arange(count)
    return sorted(_middle(descriptors, np.flatnonzero(owner == number), own) for number, own in enumerate(chosen))


def _company(descriptors: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """1 for a frame that resembles those around it as most frames do, less for one that does not: float (M,)."""
    count = len(descriptors)
    distances = np.full((2 * _AROUND, count), np.inf)
    for row, shift in enumerate(shift for shift in range(1, _AROUND + 1) if shift < count):
        apart = _distance(descriptors[shift:], descriptors[:-shift])
        apart[recordings[shift:] != recordings[:-shift]] = np.inf
        distances[2 * row, shift:] = apart
        distances[2 * row + 1, :-shift] = apart
    second = np.sort(distances, axis=0)[1]
    known = np.isfinite(second)
    usual = np.median(second[known]) if known.any() else 0.0
    return np.where(known & (second > usual), usual / np.maximum(second, 1e-9), 1.0)


def _middle(descriptors: np.ndarray, group: np.ndarray, chosen: int) -> int:
    if len(group) < 3:
        return chosen
    members = descriptors[group]
    return int(group[np.argmin(_distance(members, members.mean(axis=0)))])


def _distance(descriptors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float (M,): not by a matrix product, whose last digits change with the number of threads."""
    apart = descriptors - others
    return np.asarray(np.sqrt(np.einsum("md,md->m", apart, apart, dtype=np.float64)))
