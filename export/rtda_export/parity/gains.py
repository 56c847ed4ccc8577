"""How much better one model is than another on the same pictures, and how sure that is."""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional, Sequence

import numpy as np

from rtda_export.parity.scoring import Evaluation
from rtda_training.labels import protocol_indices

__all__ = ["Gain", "gain_over", "paired_gain"]

_RESAMPLES = 2000
_LEVEL = 0.95
_AT_ONCE = 200  # resamples whose counts are held in memory together


@dataclasses.dataclass(frozen=True)
class Gain:
    """Difference of two mIoUs in points (percent).

    Attributes:
        points: Over all pictures.
        low: Lower end of the interval of 95 %; None with one picture.
        high: Its upper end.
    """

    points: float
    low: Optional[float]
    high: Optional[float]

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def to_dict(self) -> Dict[str, object]:
        """JSON-ready."""
        ends = {"low": self.low, "high": self.high}
        rounded = {key: None if value is None else round(value, 2) for key, value in ends.items()}
        return {"points": round(self.points, 2), **rounded, "certain": self.certain}


def gain_over(first: Evaluation, other: Evaluation, protocol: Optional[int] = None) -> Optional[Gain]:
    """What ``other`` gains over ``first``; None where they were not scored in the same classes and pictures."""
    same = first.scores.class_names == other.scores.class_names
    if not same or first.by_picture.shape != other.by_picture.shape or not len(first.by_picture):
        return None
    return paired_gain(first.by_picture, other.by_picture, protocol_indices(first.scores.class_names, protocol))


def paired_gain(first: np.ndarray, other: np.ndarray, classes: Sequence[int], seed: int = 0) -> Gain:
    """The difference and its bootstrap interval over pictures.

    Each resample draws pictures with replacement, the same for both models, and takes the difference of their mIoUs
    over the drawn ones; the interval holds the middle 95 % of 2000 differences. Pictures of one drive resemble each
    other: the interval is for other pictures of *these* places, and too narrow for other ones.

    Args:
        first: int64 (pictures, C, C + 1), counts of pixels of each picture by true and predicted class.
        other: The same of the other model, of the same pictures.
        classes: Those whose IoU is averaged.
        seed: Of the draws.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
    """
    count = len(first)
    points = float(_mious(other.sum(axis=0)[None], classes)[0] - _mious(first.sum(axis=0)[None], classes)[0])
    if count < 2:
        return Gain(100 * points, None, None)
    rng, differ = np.random.default_rng(seed), []
    for _ in range(0, _RESAMPLES, _AT_ONCE):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=_AT_ONCE).astype(np.float64)
        sums = [(drawn @ each.reshape(count, -1)).reshape(_AT_ONCE, *each.shape[1:]) for each in (first, other)]
        differ.append(_mious(sums[1], classes) - _mious(sums[0], classes))
    low, high = np.nanquantile(np.concatenate(differ), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Gain(100 * points, 100 * float(low), 100 * float(high))


def _mious(counts: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Mean IoU of each of (R, C, C + 1) counts, over the classes that its labels hold."""
    hit = np.diagonal(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts[:, :, :-1].sum(axis=1)
    union = np.maximum(true + predicted - hit, 1)
    held = true[:, classes] > 0
    total = np.where(held, (hit / union)[:, classes], 0.0).sum(axis=1)
    number = held.sum(axis=1)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))
