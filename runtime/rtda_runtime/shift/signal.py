"""One signal of the alarm: blocks to scores, scores to p-values, p-values to evidence."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from rtda_runtime.shift.conformal import CalibratedScores, memory
from rtda_runtime.shift.cusum import Cusum, log_bets
from rtda_runtime.shift.reference import Reference, cross_scores

__all__ = ["Calibration", "Signal"]

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

    def moved(self, block: np.ndarray, counted: np.ndarray) -> float:
        """Difference of two blocks, float64 (d,) each, as a multiple of that between usual neighbours."""
        return float(self.reference.between(block[None], counted[None])[0]) / max(self.usual_step, 1e-12)

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
    """

    def __init__(self, calibration: Calibration, level: float) -> None:
        self.calibration = calibration
        self.cusum = Cusum(level, calibration.memory)
        self.distance, self.p_value = 0.0, 1.0

    def add(self, block: np.ndarray, *, still: bool = False) -> None:
        """Take a block, float64 (d,); ``still``: of the scene that was counted last."""
        scores = self.calibration.scores
        score = self.calibration.reference.scores(block[None])
        self.p_value = float(scores.p_values(score)[0])
        self.distance = float(score[0]) / max(scores.furthest, 1e-12)
        if not still or self.distance >= _FAR:
            self.cusum.add(float(log_bets(np.array([self.p_value]))[0]))
