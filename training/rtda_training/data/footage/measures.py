"""What is measured on a frame of footage to choose by it: light, sharpness, and what it looks like from afar.

Everything is measured on two small copies, made once for a frame: grey, about 640 pixels wide, on which blur still
shows, and in colour 160 pixels wide, 1/8 of a 720p frame, on which noise of sensor and codec has been averaged away.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Tuple

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_deploy.optional import require
from rtda_deploy.pictures.dhash import DHASH_CELLS_WH, dhash

__all__ = ["Measures", "measure"]

FINE_PX = 640  # about so wide is the copy that sharpness is measured on
SMALL_PX = 160  # so wide is the colour copy
GLANCE_WH = (64, 36)  # cells that two frames are compared in
_BRIGHT = 250  # grey level; nothing can be told apart above
_STRONG = 3.0  # times the usual difference of neighbours: edges that sharpness is measured at, and not the noise
_LEAST_EDGE = 6.0  # grey levels; what differs by less is noise


class Measures(NamedTuple):
    """What one frame measures.

    Attributes:
        mean: Grey level, 0 to 255.
        light: Grey level that 5 % of the pixels reach: of a night with lamps it is high, of a dark tunnel low.
        clipped: Share of pixels so bright that nothing can be told apart in them, 0 to 1.
        sharpness: How abrupt the strongest edges are, across and along: about 1 for a step, less the softer they are;
            contrast has no influence. Not a number where a frame has no edge.
        glance: uint8 (36, 64), the frame in grey.
        dhash: 64 bits, whether each of 8x8 cells is brighter than its neighbour to the left.
    """

    mean: float
    light: float
    clipped: float
    sharpness: Tuple[float, float]
    glance: np.ndarray
    dhash: int


def measure(image: np.ndarray) -> Tuple[Measures, np.ndarray]:
    """Measure a frame.

    Args:
        image: uint8 (H, W, 3) BGR, any size; not modified.

    Returns:
        What it measures, and its small copy, uint8 (h, 160, 3) BGR.

    Raises:
        FrameError: If it is no frame.
        MissingPackageError: If OpenCV is not installed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise FrameError(
            f"expected a uint8 (H, W, 3) BGR frame, got {image.dtype} {image.shape}",
            hint="cv2.imread(path) reads a picture so",
        )
    cv2: Any = require("cv2", extra="training")
    height, width = image.shape[:2]
    factor = max(1, round(width / FINE_PX))  # whole: OpenCV averages whole pixels many times as fast
    fine = image
    if factor > 1:
        size_wh = (max(1, width // factor), max(1, height // factor))
        fine = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    small = cv2.resize(fine, (SMALL_PX, max(1, round(SMALL_PX * height / width))), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    counts = np.bincount(grey.ravel(), minlength=256)
    below = np.cumsum(counts)
    found = Measures(
        mean=float(counts @ np.arange(256)) / grey.size,
        light=float(np.searchsorted(below, 0.95 * grey.size)),
        clipped=float(counts[_BRIGHT:].sum()) / grey.size,
        sharpness=_sharpness(cv2, cv2.cvtColor(fine, cv2.COLOR_BGR2GRAY)),
        glance=cv2.resize(grey, GLANCE_WH, interpolation=cv2.INTER_AREA),
        dhash=dhash(cv2.resize(grey, DHASH_CELLS_WH, interpolation=cv2.INTER_AREA)),
    )
    return found, small


def _sharpness(cv2: Any, grey: np.ndarray) -> Tuple[float, float]:
    """Energy of the second difference over that of the first, at the strongest edges, across and along."""
    found = []
    for lines in (grey, cv2.transpose(grey)):
        if lines.shape[1] < 3:
            found.append(float("nan"))
            continue
        rise = cv2.subtract(lines[:, 1:], lines[:, :-1], dtype=cv2.CV_16S)
        first = cv2.convertScaleAbs(cv2.add(rise[:, 1:], rise[:, :-1]))  # from the pixel before to the one after
        second = cv2.convertScaleAbs(cv2.subtract(rise[:, 1:], rise[:, :-1]))
        usual = cv2.norm(first, cv2.NORM_L2) / first.size**0.5
        edges = cv2.compare(first, max(_STRONG * usual, _LEAST_EDGE), cv2.CMP_GT)
        energy = cv2.norm(cv2.bitwise_and(first, edges), cv2.NORM_L2SQR)
        found.append(cv2.norm(cv2.bitwise_and(second, edges), cv2.NORM_L2SQR) / energy if energy else float("nan"))
    return found[0], found[1]
