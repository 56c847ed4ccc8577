"""What a frame looks like from afar: a few numbers by which frames are compared, on the collector's own thread.

Everything is computed on a grey copy of 72 cells and on the class shares, in about a millisecond.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from rtda_deploy.pictures.dhash import DHASH_CELLS_WH, dhash
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.groups import count_classes
from rtda_runtime.result import Result
from rtda_runtime.shift.collecting.familiarity import confidence_signal

__all__ = ["Look", "Novelty", "distance", "look_at"]

_SAMPLE = 4  # every fourth pixel, across and down, is enough for a mean
_GREY_WEIGHT = 2.0  # a mean difference of half the grey range is as far as shares that have nothing in common
_FLOOR = 0.02  # standard deviation below which a value does not vary: noise of the sensor
_MEMORY = 1000.0  # frames that the usual look is the mean of


class Look(NamedTuple):
    """A frame from afar.

    Attributes:
        dhash: 64 bits, whether each of 8x8 cells is brighter than its neighbour to the left.
        vector: float32 (72 + classes,): grey cells, and the roots of the class shares, so scaled that the distance of
            two frames is 0 where they look alike and about 1 where they have nothing in common.
        shares: float64 (classes,), of the labelled pixels.
        values: What expressions may use; ``disagreement`` and ``confidence`` only where the result has them.
    """

    dhash: int
    vector: np.ndarray
    shares: np.ndarray
    values: Dict[str, float]


def look_at(result: Result) -> Look:
    """Look at a result; its arrays are read, not kept.

    Raises:
        MissingPackageError: If OpenCV is not installed.
    """
    cv2: Any = opencv("to collect frames")
    coarse = np.ascontiguousarray(result.frame[::_SAMPLE, ::_SAMPLE])
    grey = cv2.cvtColor(coarse, cv2.COLOR_BGR2GRAY)
    cells = cv2.resize(grey, DHASH_CELLS_WH, interpolation=cv2.INTER_AREA)
    counts = count_classes(result.mask, result.spec)
    shares = np.array(list(counts.shares.values()))
    flat = cells.astype(np.float32).ravel() / 255.0
    vector = np.concatenate([flat * (_GREY_WEIGHT / len(flat) ** 0.5), np.sqrt(shares / 2.0).astype(np.float32)])
    values = {"brightness": float(flat.mean()), "unlabelled": counts.unlabelled}
    for name, value in (("disagreement", _disagreement(result)), ("confidence", _confidence(result))):
        if value is not None:
            values[name] = value
    return Look(dhash(cells), vector, shares, values)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of the vectors of two frames: 0 where they look alike, about 1 where they have nothing in common."""
    return float(np.linalg.norm(a - b))


class Novelty:
    """How unlike the frames before it a frame is: root mean square of z-scores, d, as d / (1 + d).

    Mean and variance of each number of the look are those of about the last thousand frames.
    """

    def __init__(self) -> None:
        self._mean: Optional[np.ndarray] = None
        self._variance = np.zeros(0)
        self._count = 0.0

    def of(self, vector: np.ndarray) -> float:
        """Novelty of a frame, 0 to 1, which from now on is one of those before; of the first it is 0.5."""
        values = vector.astype(np.float64)
        if self._mean is None:
            self._mean, self._variance, self._count = values, np.full(values.shape, _FLOOR**2), 1.0
            return 0.5
        deviation = values - self._mean
        apart = float(np.sqrt(np.mean(deviation**2 / (self._variance + _FLOOR**2))))
        self._count = min(self._count + 1.0, _MEMORY)
        self._mean = self._mean + deviation / self._count
        self._variance = self._variance + (deviation**2 - self._variance) / self._count
        return apart / (1.0 + apart)


def _disagreement(result: Result) -> Optional[float]:
    """Share of the pixels with a class that the second network calls another."""
    if result.compared is None:
        return None
    first, second = (mask[::_SAMPLE, ::_SAMPLE] for mask in (result.mask, result.compared))
    known = first != result.spec.ignore_index
    return float((first != second)[known].mean()) if known.any() else 0.0


def _confidence(result: Result) -> Optional[float]:
    """Mean over the pixels with a class, 0 to 1; of a monitored network the mean that it gives by itself."""
    if result.confidence is None:
        return confidence_signal(result)
    known = result.mask[::_SAMPLE, ::_SAMPLE] != result.spec.ignore_index
    return float(result.confidence[::_SAMPLE, ::_SAMPLE][known].mean()) / 255.0 if known.any() else 1.0
