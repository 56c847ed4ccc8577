"""Which frames of one recording are blurred, by its own sharpness: of another camera a figure means another blur.

Two rules. Against the running median: what is soft beside the frames around it, while a night or a fog, soft for
minutes, is kept. Against the best quarter of the whole recording: what is very soft is blurred however long it lasts,
so that a stretch longer than the running median's window does not become the measure of itself.
"""

from __future__ import annotations

import bisect
from typing import List, Tuple

import numpy as np

__all__ = ["Sharpness"]

_FEW = 20  # frames; from fewer nothing is concluded before the recording has ended
_BEST = 0.75  # quantile of sharpness that very soft frames are held against: 3/4 of a recording may be blurred


class Sharpness:
    """The sharpness of the frames of one recording.

    Args:
        local: Share of the running median below which a frame is blurred.
        whole: Share of what the recording's best quarter reaches, below which it is, too.
        window: Frames of the running median.
    """

    def __init__(self, local: float, whole: float, window: int) -> None:
        self._local, self._whole, self._window = local, whole, window
        self._places: List[int] = []
        self._values: List[Tuple[float, float]] = []
        self._sorted: Tuple[List[float], List[float]] = ([], [])

    def add(self, place: int, sharpness: Tuple[float, float]) -> bool:
        """Take the next frame; whether it is so soft that it is blurred, going by the frames until now.

        Args:
            place: Any number, for :meth:`blurred`.
            sharpness: Across and along; not a number where a frame has no edges to judge by.
        """
        self._places.append(place)
        self._values.append(sharpness)
        soft = False
        for value, ordered in zip(sharpness, self._sorted):
            if value == value:  # a number
                bisect.insort(ordered, value)
                soft |= len(ordered) >= _FEW and value < self._whole * ordered[int(_BEST * (len(ordered) - 1))]
        return soft

    def blurred(self) -> List[int]:
        """The places of all frames that are blurred, now that all have been seen."""
        if not self._places:
            return []
        values = np.array(self._values)  # (N, 2)
        soft = np.zeros(len(values), bool)
        for direction in range(2):
            own = values[:, direction]
            known = np.isfinite(own)
            if not known.any():
                continue
            very_soft = known & (own < self._whole * np.quantile(own[known], _BEST))
            median = _running_median(own, known & ~very_soft, self._window)
            soft |= very_soft | (known & (own < self._local * median))
        return [self._places[number] for number in np.flatnonzero(soft)]


def _running_median(values: np.ndarray, counted: np.ndarray, window: int) -> np.ndarray:
    """For each value the median of the nearest that count, half of them before it and half of them after."""
    numbers = np.flatnonzero(counted)
    starts = np.clip(np.searchsorted(numbers, np.arange(len(values))) - window // 2, 0, max(0, len(numbers) - window))
    return np.array([np.median(values[numbers[start : start + window]]) for start in starts])
