"""Frames to blocks of seconds: neighbouring frames show the same, so their means are what is tested."""

from __future__ import annotations

from typing import List, Optional

import numpy as np

__all__ = ["BlockMaker"]

_GAP = 3.0  # frames further apart than so many times the usual are not of one block
_EARLY = 0.02  # share of the distance by which a frame may be early: cameras are not that regular


class BlockMaker:
    """Takes a frame's numbers every ``sample_s`` seconds and gives the mean of each ``samples`` of them.

    Frames in between are not looked at, so a camera of 60 Hz and a folder of one frame a second give blocks alike.

    Args:
        sample_s: Seconds between two frames that are looked at.
        samples: Frames of a block.
    """

    def __init__(self, sample_s: float, samples: int) -> None:
        self._sample_s, self._samples = sample_s, samples
        self._held: List[np.ndarray] = []
        self._last_s = -np.inf

    def due(self, at_s: float) -> bool:
        """Whether a frame of that time would be looked at; time that goes back starts anew."""
        return at_s < self._last_s or at_s - self._last_s >= self._sample_s * (1.0 - _EARLY)

    def add(self, at_s: float, signals: np.ndarray) -> Optional[np.ndarray]:
        """Take a frame.

        Args:
            at_s: When it was captured, seconds on any clock.
            signals: float (D,); copied.

        Returns:
            float64 (D,): a block, when this frame made one whole; else None.
        """
        if not self.due(at_s):
            return None
        if at_s < self._last_s or at_s - self._last_s > _GAP * self._sample_s:
            self._held.clear()
        self._last_s = at_s
        self._held.append(np.asarray(signals, np.float64))
        if len(self._held) < self._samples:
            return None
        block = np.asarray(np.mean(self._held, axis=0))
        self._held.clear()
        return block
