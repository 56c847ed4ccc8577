"""Confusion matrix, IoU and pixel accuracy, over a whole set (not averaged per picture).

NumPy only; the same code scores a ``.pth``, an ``.onnx`` and an ``.engine``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_training.labels import IGNORE_INDEX, PROTOCOLS, protocol_indices

__all__ = ["ConfusionMatrix", "Scores", "as_percent"]


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column); label 255 is left out.

    A predicted value outside the classes counts against its true class (a miss), for no class.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._counts = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def add(self, label: np.ndarray, mask: np.ndarray) -> None:
        """Count one picture.

        Args:
            label: uint8 (H, W), true classes, 255 where not labelled.
            mask: uint8 (H, W), predicted classes.

        Raises:
            DataError: If the sizes differ.
        """
        self._counts += self.of(label, mask)

    def of(self, label: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """int64 (C, C + 1): what :meth:`add` counts of one picture; the last column is of values outside the classes.

        Raises:
            DataError: If the sizes differ.
        """
        if label.shape != mask.shape:
            raise DataError(f"label is {label.shape}, mask is {mask.shape}", hint="score at the label's own size")
        valid = label != IGNORE_INDEX
        columns = self.num_classes + 1
        predicted = np.minimum(mask[valid].astype(np.int64), self.num_classes)
        index = label[valid].astype(np.int64) * columns + predicted
        counts = np.bincount(index, minlength=self.num_classes * columns)
        return np.asarray(counts.reshape(self.num_classes, columns))

    def add_counts(self, counts: np.ndarray) -> None:
        """Count what :meth:`of` gave."""
        self._counts += counts

    @property
    def counts(self) -> np.ndarray:
        """int64 (C, C): rows are true classes, columns predicted ones."""
        return self._counts[:, : self.num_classes]

    def scores(self, class_names: Sequence[str]) -> Scores:
        """Reduce the counts to scores."""
        hit = np.diag(self.counts).astype(np.float64)
        true = self._counts.sum(axis=1)
        predicted = self.counts.sum(axis=0)
        union = true + predicted - hit
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = np.where(true > 0, hit / union, np.nan)
        total = int(true.sum())
        return Scores(
            class_names=tuple(class_names),
            iou=tuple(float(value) for value in iou),
            pixel_accuracy=float(hit.sum() / total) if total else math.nan,
            pixels=total,
        )


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a network reached on a set.

    Attributes:
        class_names: One per class.
        iou: Intersection over union per class, 0..1; NaN for a class that no label of the set holds.
        pixel_accuracy: Share of the labelled pixels that are right, 0..1.
        pixels: Number of labelled pixels.
    """

    class_names: Tuple[str, ...]
    iou: Tuple[float, ...]
    pixel_accuracy: float
    pixels: int

    def miou(self, protocol: Optional[int] = None) -> float:
        """Mean IoU in 0..1 over a protocol's classes (19, 16 or 13; None: all) that occur in the labels."""
        chosen = [self.iou[index] for index in protocol_indices(self.class_names, protocol)]
        present = [value for value in chosen if not math.isnan(value)]
        return sum(present) / len(present) if present else math.nan

    def absent(self) -> List[str]:
        """Classes that no label holds and that no mean counts."""
        return [name for name, value in zip(self.class_names, self.iou) if math.isnan(value)]

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready: percentages rounded to 0.01, ``null`` for absent classes; every protocol that fits."""
        protocols = {
            f"miou{protocol}": as_percent(self.miou(protocol))
            for protocol, names in PROTOCOLS.items()
            if set(names) <= set(self.class_names)
        }
        return {
            "miou": as_percent(self.miou()),
            **protocols,
            "pixel_accuracy": as_percent(self.pixel_accuracy),
            "iou": {name: as_percent(value) for name, value in zip(self.class_names, self.iou)},
            "pixels": self.pixels,
        }


def as_percent(value: float) -> Optional[float]:
    """A share 0..1 in percent, rounded to 0.01; None for NaN."""
    return None if math.isnan(value) else round(100.0 * value, 2)
