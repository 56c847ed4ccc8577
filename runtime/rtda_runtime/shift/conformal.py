"""How unusual a block is beside those of the calibration: conformal p-values that hold for the calibration at hand.

A plain conformal p-value is right on average over calibrations; a robot has one for ever. Those here are too small with
a probability of at most ``DELTA`` over calibrations, for all blocks to come at once. Calibration blocks that are alike
because they are neighbours count as the fewer that they are worth.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

__all__ = ["DELTA", "CalibratedScores", "least_p", "memory"]

DELTA = 0.1  # how often a calibration may be one whose p-values are too small
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
    """The p-value of a block that is further than all of the calibration; see :class:`CalibratedScores`."""
    return 1.0 - math.exp(2.0 / max(2.0, independent) * math.log(DELTA))


class CalibratedScores:
    """The scores of the calibration's blocks, for p-values of others.

    With n independent blocks, a block that r of them reach or exceed gets the (r + 1)-th value of a bound that holds at
    once for all r with probability 1 - ``DELTA``: the generalised Simes inequality with k = n / 2 (Bates, Candes, Lei,
    Romano and Sesia, Testing for outliers with conformal p-values, Annals of Statistics 51, 2023, section 3.2). Half of
    the blocks have a p-value of 1.

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
        self._bounds = _simes_bounds(self.independent)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """float64 (N,) of float64 (N,), above 0 and at most 1."""
        reached = len(self._sorted) - np.searchsorted(self._sorted, scores, side="left")
        rank = np.ceil(reached * (self.independent / len(self._sorted))).astype(int)
        found = self._bounds[np.minimum(rank, self.independent)]
        beyond = np.maximum(1.0, scores / max(self.furthest, 1e-12))
        return np.asarray(found / beyond**2)


def _simes_bounds(count: int) -> np.ndarray:
    """float64 (n + 1,), rising: what stands in the place of (r + 1) / (n + 1), for r = 0 .. n."""
    half = count // 2
    found = np.ones(count + 1)
    for reached in range(count - half + 1):
        left = count - reached
        log_ratio = _log_falling(left, half) - _log_falling(count, half)
        found[reached] = 1.0 - math.exp((math.log(DELTA) + log_ratio) / half)
    return found


def _log_falling(number: int, factors: int) -> float:
    """Logarithm of number * (number - 1) * ..., so many factors."""
    return math.lgamma(number + 1) - math.lgamma(number - factors + 1)
