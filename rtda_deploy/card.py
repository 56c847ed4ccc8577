"""The calibration card: how a network behaves on labelled pictures of the domain that it learned from.

It is what a robot, far from any label, can hold its own confidences and features against. It travels beside the
ModelSpec, as an entry of its own (``card`` in a checkpoint, ``rtda.card`` in the metadata of an ONNX file): a program
that does not know it loads the model as before. Standard library and NumPy only.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from rtda_training.judge.answers import BINS

__all__ = ["Card", "FeatureStatistics", "card_from_json", "confidence_bins", "temperature_of"]

VERSION = 1
_LARGEST_LOG, _TOLERANCE = 3.0, 1e-3  # of the temperature: exp(-3) to exp(3)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """Pooled features of one stage of the backbone over pictures: mean and variance of each channel."""

    mean: Tuple[float, ...]
    variance: Tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Card:
    """What a network is on labelled pictures of its source; BINS bins of the winning probability, C classes.

    Attributes:
        data: Address of the pictures.
        pictures: How many.
        held_out: Whether they are none that it was trained on; if not, it looks better than it is.
        temperature: What its logits are divided by to be as sure as it is right.
        class_prior: C shares of the labelled pixels.
        predicted_prior: C shares of the same pixels as the network has them.
        confidence: BINS shares of the pixels, by the probability of the winner, undivided.
        accuracy: BINS shares of right ones among them; None for an empty bin.
        features: Of each stage of the backbone, strides 4, 8, 16 and 32.
    """

    data: str
    pictures: int
    held_out: bool
    temperature: float
    class_prior: Tuple[float, ...]
    predicted_prior: Tuple[float, ...]
    confidence: Tuple[float, ...]
    accuracy: Tuple[Optional[float], ...]
    features: Tuple[FeatureStatistics, ...] = ()

    @property
    def right(self) -> float:
        """Share of the pixels that were right, 0..1."""
        return sum(share * (right or 0.0) for share, right in zip(self.confidence, self.accuracy))

    @property
    def calibration_error(self) -> float:
        """Mean difference between how sure and how right it was, weighted by bins, 0..1 (ECE, 20 bins)."""
        centres = [(place + 0.5) / BINS for place in range(BINS)]
        parts = zip(self.confidence, self.accuracy, centres)
        return sum(share * abs(right - centre) for share, right, centre in parts if right is not None)

    def to_json(self) -> str:
        """One line; numbers with five digits."""
        return json.dumps({"version": VERSION, **_rounded(dataclasses.asdict(self))}, separators=(",", ":"))

    def expected_accuracy(self, confidence: np.ndarray) -> float:
        """Share of right pixels that a histogram of confidence, BINS shares, would have if the card held there."""
        known = np.asarray([np.nan if value is None else value for value in self.accuracy])
        centres = (np.arange(BINS) + 0.5) / BINS
        usable = ~np.isnan(known)
        filled = np.interp(centres, centres[usable], known[usable]) if usable.any() else centres
        return float(confidence @ filled)


def card_from_json(text: str) -> Optional[Card]:
    """The card of a text that :meth:`Card.to_json` wrote; None for an empty or broken one, or another version's.

    A model is of use without its card: what needs one says that it is missing.
    """
    try:
        values: Dict[str, Any] = json.loads(text)
        if values.pop("version") != VERSION:
            return None
        values["features"] = tuple(
            FeatureStatistics(_numbers(one["mean"]), _numbers(one["variance"])) for one in values["features"]
        )
        for key in ("class_prior", "predicted_prior", "confidence"):
            values[key] = _numbers(values[key])
        values["accuracy"] = tuple(None if value is None else float(value) for value in values["accuracy"])
        card = Card(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    fits = len(card.confidence) == len(card.accuracy) == BINS and len(card.class_prior) == len(card.predicted_prior)
    return card if fits and isinstance(card.temperature, float) and card.temperature > 0 else None


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
    return _numbers((counts / max(1, len(sure))).tolist()), accuracy


def _numbers(values: List[Any]) -> Tuple[float, ...]:
    found = tuple(float(value) for value in values)
    if not all(map(math.isfinite, found)):
        raise ValueError("a card has finite numbers")
    return found


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values
