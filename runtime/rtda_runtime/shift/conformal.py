"""How unusual a block is beside those of the calibration: conformal p-values, and what a bet on them can win by luck.

Calibration blocks that are alike because they are neighbours count as the fewer that they are worth.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

__all__ = ["CalibratedScores", "least_p", "memory"]

_MOST_LAGS = 0.2  # of a stretch: correlations at longer lags are noise
_UNCORRELATED = 0.1  # what a correlation of noise is, about


def memory(scores: np.ndarray, stretches: Sequence[int]) -> float:
    """For how many blocks a block's score says something of the next, at least 1: integrated autocorrelation time.

    K blocks hold about as much as K / memory independent ones.

    Args:
        scores: float64 (K,).
        stretches: Blocks that follow each other without a gap, K in all.
    """
    ranks = np.argsort(np.argsort(scores)).astype(np.float64)  # a few far ones would hide the rest
    ranks -= ranks.mean()
    variance = float((ranks**2).mean())
    edges = np.concatenate([[0], np.cumsum(stretches)])
    runs = [ranks[start:end] for start, end in zip(edges[:-1], edges[1:])]
    total = 1.0
    for lag in range(1, max(2, int(_MOST_LAGS * max(stretches)))):
        products = [run[lag:] * run[:-lag] for run in runs if len(run) > lag]
        if not products or variance <= 0:
            break
        correlation = float(np.concatenate(products).mean()) / variance
        if correlation < _UNCORRELATED:
            break
        total += 2.0 * correlation
    return total


def least_p(independent: float) -> float:
    """The p-value of a block that is as far as the furthest of the calibration; see :class:`CalibratedScores`."""
    return 1.0 / (max(2, int(independent)) + 1)


class CalibratedScores:
    """The scores of the calibration's blocks, for p-values of others.

    With n independent blocks, a block that r of them reach or exceed gets (r + 1) / (n + 1) (Vovk, Gammerman and
    Shafer, Algorithmic learning in a random world, 2005, section 2.2). That is right on average over calibrations; what
    it is for the one at hand :func:`~rtda_runtime.shift.cusum.alarm_level` allows for.

    Beyond the furthest of the calibration a p-value falls with the square of the score; scores are squares, so that is
    how the tail of a deviation with four finite moments falls at least (Markov's inequality).

    Args:
        scores: float64 (K,).
        independent: How many independent blocks they are worth, at most K.
    """

    def __init__(self, scores: np.ndarray, independent: float) -> None:
        self.independent = max(2, int(independent))
        self.furthest = float(scores.max())
        self._sorted = np.sort(scores)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """float64 (N,) of float64 (N,), above 0 and at most 1."""
        reached = len(self._sorted) - np.searchsorted(self._sorted, scores, side="left")
        rank = np.ceil(reached * (self.independent / len(self._sorted)))
        found = (rank + 1.0) / (self.independent + 1.0)
        beyond = np.maximum(1.0, scores / max(self.furthest, 1e-12))
        return np.asarray(found / beyond**2)
