"""What a calibration card is made of: a softmax's temperature, and how often each confidence is right.

NumPy only.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

import numpy as np

from rtda_deploy.card import BINS

__all__ = ["confidence_bins", "temperature_of"]

_LARGEST_LOG, _TOLERANCE = 3.0, 1e-3  # of the temperature: exp(-3) to exp(3)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes labels likeliest, between 0.05 and 20.

    Args:
        logits: float32 (K, C).
        labels: int (K,), classes.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2.
    """
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    own = shifted[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((np.log(np.exp(shifted * scale).sum(axis=1)) - own * scale).mean())

    low, high = -_LARGEST_LOG, _LARGEST_LOG  # convex in 1/T: a golden section finds its one minimum
    while high - low > _TOLERANCE:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return math.exp((low + high) / 2.0)


def confidence_bins(sure: np.ndarray, right: np.ndarray) -> Tuple[Tuple[float, ...], Tuple[Optional[float], ...]]:
    """The histogram of confidences and the accuracy in each bin.

    Args:
        sure: float (K,), probability of the winner.
        right: bool (K,), whether it is the label.
    """
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    hits = np.bincount(place, weights=right, minlength=BINS)
    accuracy = tuple(float(hit / count) if count else None for hit, count in zip(hits, counts))
    return tuple((counts / max(1, len(sure))).tolist()), accuracy
