"""One signal of the alarm: blocks to scores, scores to p-values, p-values to evidence.

A robot that stands still films one scene, however long. Its blocks are no evidence each: only the first counts. But a
scene that is far beyond the calibration counts on, because a covered lens does not move either.
"""

from __future__ import annotations

from typing import Optional, Sequence

import numpy as np

from rtda_runtime.shift.conformal import CalibratedScores, memory
from rtda_runtime.shift.cusum import Cusum, log_bets
from rtda_runtime.shift.reference import Reference, cross_scores

__all__ = ["Calibration", "Signal"]

_STILL = 0.2  # of the usual difference between two blocks that follow each other: less is the same scene
_FAR = 2.0  # times the furthest of the calibration: no scene is that far by standing somewhere unusual


class Calibration:
    """What the calibration's blocks say of one signal.

    Args:
        name: Of the signal.
        values: float64 (K, d).
        stretches: Blocks that follow each other without a gap, K in all.

    Attributes:
        memory: Blocks that are alike; K / memory are independent.
    """

    def __init__(self, name: str, values: np.ndarray, stretches: Sequence[int]) -> None:
        self.name = name
        self.reference = Reference(values, name)
        scores = cross_scores(values, name)
        self.memory = memory(scores, stretches)
        self.scores = CalibratedScores(scores, len(values) / self.memory)
        inner = np.setdiff1d(np.arange(1, len(values)), np.cumsum(stretches))
        steps = self.reference.between(values[inner], values[inner - 1])
        self.usual_step = float(np.median(steps)) if len(steps) else 0.0

    @property
    def independent(self) -> float:
        """How many independent blocks it is worth."""
        return float(self.scores.independent)


class Signal:
    """The evidence of one signal, block by block.

    Args:
        calibration: Fixed.
        level: At which its CUSUM raises the alarm.

    Attributes:
        cusum: Its evidence.
        distance: Of the newest block: its score as a multiple of the furthest in the calibration.
        p_value: Of the newest block.
        still: Whether the newest block shows the scene that was counted last.
    """

    def __init__(self, calibration: Calibration, level: float) -> None:
        self.calibration = calibration
        self.cusum = Cusum(level, calibration.memory)
        self.distance, self.p_value, self.still = 0.0, 1.0, False
        self._counted: Optional[np.ndarray] = None

    def add(self, block: np.ndarray) -> None:
        """Take a block, float64 (d,)."""
        found, row = self.calibration, block[None]
        score = found.reference.scores(row)
        self.p_value = float(found.scores.p_values(score)[0])
        self.distance = float(score[0]) / max(found.scores.furthest, 1e-12)
        self.still = self._counted is not None and (
            float(found.reference.between(row, self._counted)[0]) < _STILL * found.usual_step
        )
        if self.still and self.distance < _FAR:
            return
        self._counted = row if not self.still else self._counted
        self.cusum.add(float(log_bets(np.array([self.p_value]))[0]))
