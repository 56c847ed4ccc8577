"""How far a block is from those of the calibration: a Mahalanobis distance with a fixed reference.

What differs from block to block in one scene, many channels at once, counts little; what never does so counts much.
There are fewer blocks than channels, so that the channels' correlations are drawn towards none. The blocks that the
reference is made of are scored by references without them, so that theirs and a robot's are alike.
"""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np

from rtda_deploy.familiar import SIGNALS, Familiar

__all__ = ["Reference", "cross_scores", "signal_values", "unpacked"]

_FOLDS = 5
_MOST_SPREADS = 10.0  # one channel counts no further: a channel that was silent in the calibration is not the world
# Least spread of a channel, in its own units: of a share's root, and of a confidence, both 0..1.
_FLOORS = {"appearance": 0.0, "features": 0.0, "classes": 0.01, "confidence": 0.005}
_RELATIVE_FLOOR = 0.05  # of the median spread of the channels
_SHRUNK = 0.2  # share of channels without correlation in the reference's; the rest is what the blocks have


class Reference:
    """Mean and spread of each channel of one signal, and how channels go together.

    Args:
        values: float64 (K, d), K >= 2, as :func:`signal_values` gives them.
        signal: One of :data:`SIGNALS`.
    """

    def __init__(self, values: np.ndarray, signal: str) -> None:
        self.mean = values.mean(axis=0)
        spread = values.std(axis=0, ddof=1)
        least = max(_FLOORS[signal], _RELATIVE_FLOOR * float(np.median(spread)), 1e-9)
        self.spread = np.maximum(spread, least)
        deviations = (values - self.mean) / self.spread
        correlations = deviations.T @ deviations * ((1.0 - _SHRUNK) / (len(values) - 1))
        np.fill_diagonal(correlations, 1.0)
        # Of the inverse: the squares of what it makes of a deviation add up to the distance.
        self._root = np.linalg.cholesky(np.linalg.inv(correlations))

    def scores(self, values: np.ndarray) -> np.ndarray:
        """float64 (K,) of float64 (K, d): 1 is usual, 0 is the mean itself."""
        deviations = np.clip((values - self.mean) / self.spread, -_MOST_SPREADS, _MOST_SPREADS)
        return np.asarray(((deviations @ self._root) ** 2).mean(axis=1))

    def between(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """float64 (K,): mean squared difference of pairs of blocks, float64 (K, d) each, each channel by its spread.

        Without the correlations, which would make much of a sensor's noise.
        """
        return np.asarray((((one - other) / self.spread) ** 2).mean(axis=1))


def cross_scores(values: np.ndarray, signal: str) -> np.ndarray:
    """float64 (K,): each block scored by a reference of the others, leaving out the fifth of the footage around it.

    Source: cross-conformal prediction, Vovk, Annals of Mathematics and Artificial Intelligence 74 (2015); folds are
    stretches of time because neighbours are alike.
    """
    found = np.empty(len(values))
    for fold in np.array_split(np.arange(len(values)), min(_FOLDS, len(values) // 2)):
        others = np.delete(values, fold, axis=0)
        found[fold] = Reference(others, signal).scores(values[fold])
    return found


def signal_values(signal: str, values: np.ndarray) -> np.ndarray:
    """The numbers that are compared: shares by their roots, which spread alike whether large or small."""
    return np.sqrt(np.maximum(values, 0.0)) if signal == "classes" else values


def unpacked(familiar: Familiar) -> Dict[str, np.ndarray]:
    """float64 (K, d) by signal, of the signals that have numbers."""
    bytes_ = np.frombuffer(familiar.packed, np.uint8).reshape(familiar.blocks, -1).astype(np.float64)
    low, high = np.asarray(familiar.low), np.asarray(familiar.high)
    values = low + bytes_ * ((high - low) / 255.0)
    return {name: signal_values(name, values[:, part]) for name, part in parts(familiar.widths).items()}


def parts(widths: Tuple[int, ...]) -> Dict[str, slice]:
    """Where each signal stands in a row."""
    ends = np.cumsum(widths).tolist()
    return {name: slice(end - width, end) for name, width, end in zip(SIGNALS, widths, ends) if width}
