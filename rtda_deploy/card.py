"""The calibration card: how a network behaves on labelled pictures of the domain that it learned from.

It is what a robot, far from any label, can hold its own confidences and features against. It travels beside the
ModelSpec, as an entry of its own (``card`` in a checkpoint, ``rtda.card`` in the metadata of an ONNX file): a program
that does not know it loads the model as before. ``rtda_training.judge.calibration`` measures what it says.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

__all__ = ["BINS", "FAMILIAR_KEY", "Card", "FeatureStatistics", "card_from_json", "card_sentence"]

VERSION = 1
FAMILIAR_KEY = "familiar"  # of blocks of footage, in the same JSON: rtda_deploy.familiar
BINS = 20  # of histograms of confidence, 0..1


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

    def expected_accuracy(self, confidence: Sequence[float]) -> float:
        """Share of right pixels that a histogram of confidence, BINS shares, would have if the card held there.

        Between bins whose accuracy is known it goes on a straight line, beyond the outermost it stays as it is there.
        """
        known = [(place, right) for place, right in enumerate(self.accuracy) if right is not None]
        return sum(float(share) * _between(known, place) for place, share in enumerate(confidence))

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready: the fields, and what follows from them, ``right`` and ``calibration_error``."""
        return {**dataclasses.asdict(self), "right": self.right, "calibration_error": self.calibration_error}


def card_from_json(text: str) -> Optional[Card]:
    """The card of a text that :meth:`Card.to_json` wrote; None for an empty or broken one, or another version's.

    A model is of use without its card: what needs one says that it is missing.
    """
    try:
        values: Dict[str, Any] = json.loads(text)
        if values.pop("version") != VERSION:
            return None
        values.pop(FAMILIAR_KEY, None)  # rtda_deploy.familiar reads it
        values["features"] = tuple(
            FeatureStatistics(_numbers(one["mean"]), _numbers(one["variance"])) for one in values["features"]
        )
        for key in ("class_prior", "predicted_prior", "confidence"):
            values[key] = _numbers(values[key])
        values["accuracy"] = tuple(None if value is None else float(value) for value in values["accuracy"])
        card = Card(**values)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return None
    fits = len(card.confidence) == len(card.accuracy) == BINS and len(card.class_prior) == len(card.predicted_prior)
    return card if fits and isinstance(card.temperature, float) and card.temperature > 0 else None


def card_sentence(card: Mapping[str, Any]) -> str:
    """What a person wants to know first of a card, given as :meth:`Card.to_dict` gives it."""
    kind = "held out" if card["held_out"] else "trained on"
    return (
        f"{100 * card['right']:.1f} % right, calibration error {100 * card['calibration_error']:.1f} %,"
        f" temperature {card['temperature']:.2f}, on {card['pictures']} pictures ({kind}) of {card['data']}"
    )


def _between(known: Sequence[Tuple[int, float]], place: int) -> float:
    """The value at a place on the line through the known ones; where none is known, the middle of the bin."""
    if not known:
        return (place + 0.5) / BINS
    below = [entry for entry in known if entry[0] <= place] or known[:1]
    above = [entry for entry in known if entry[0] >= place] or known[-1:]
    (left, low), (right, high) = below[-1], above[0]
    return low if right <= left else low + (high - low) * (place - left) / (right - left)


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
