"""Figures beside IoU: how well borders lie, whether the network's confidence can be trusted, what a group is worth.

NumPy and OpenCV only, as all of scoring.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from rtda_runtime._opencv import opencv
from rtda_training.labels import IGNORE_INDEX

__all__ = ["Boundaries", "Calibration", "GroupScores", "group_scores"]

_TOLERANCE = 0.0075  # of the picture's diagonal: Csurka et al.
_BINS = 15  # Guo et al.


class Boundaries:
    """Boundary F1 by class, over a whole set.

    A boundary pixel of a class has a neighbour (up, down, left, right) of another; borders to pixels that are not
    scored are none, in neither mask. Precision is the share of predicted boundary pixels that have a true one of the
    same class within 0.75 % of the picture's diagonal, recall the other way round. Pixels of all pictures are counted
    together, as for IoU; the paper averages over pictures.

    Source: Csurka et al., What is a good evaluation measure for semantic segmentation? (BMVC 2013), section 3.
    """

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros((num_classes, 4), np.int64)  # predicted, of those near; true, of those near

    def add(self, label: np.ndarray, mask: np.ndarray) -> None:
        """Count one picture: uint8 (H, W) of one size; where ``label`` is 255, ``mask`` does not matter."""
        seen = np.where(label == IGNORE_INDEX, label, mask)
        reach = max(1, round(_TOLERANCE * math.hypot(*label.shape)))
        truth, found = label[_edges(label)], seen[_edges(seen)]
        true_edges, found_edges = _edges(label), _edges(seen)
        for index in np.union1d(truth, found):
            if index < len(self._counts):
                true, predicted = true_edges & (label == index), found_edges & (seen == index)
                near = [
                    int(a.sum()) and int((a & _near(b, reach)).sum()) for a, b in ((predicted, true), (true, predicted))
                ]
                self._counts[index] += (int(predicted.sum()), near[0], int(true.sum()), near[1])

    def f1(self) -> Tuple[float, ...]:
        """Of each class, 0..1; NaN for one that has no boundary in the labels."""
        return tuple(_f1(*(int(count) for count in row)) for row in self._counts)


def _f1(predicted: int, right: int, true: int, met: int) -> float:
    if not true:
        return math.nan
    precision, recall = right / predicted if predicted else 0.0, met / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _edges(mask: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels beside one of another class; 255 is no class."""
    found = np.zeros(mask.shape, bool)
    for first, second in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        a, b = mask[first], mask[second]
        differ = (a != b) & (a != IGNORE_INDEX) & (b != IGNORE_INDEX)
        found[first] |= differ
        found[second] |= differ
    return found


def _near(edge: np.ndarray, reach: int) -> np.ndarray:
    """bool (H, W): pixels within ``reach`` of a set one."""
    cv2: Any = opencv("to measure boundaries")
    if not edge.any():
        return edge
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= reach)


class Calibration:
    """Expected calibration error: how far the confidence in an answer is from the share of answers that are right.

    Looked at in the middle of each of the network's own cells (one pixel of 64), where the enlarged logits are the
    network's own. Where classes are joined, a class's confidence is that of all that are joined with it.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 2; 15 bins of equal width.

    Args:
        joined: uint8 (256,), the scored class by the network's own; None: they are the same.
    """

    def __init__(self, joined: Optional[np.ndarray] = None) -> None:
        self._joined = joined
        self._bins = np.zeros((_BINS, 3))  # answers, confidence, right ones

    def add(self, label: np.ndarray, logits: np.ndarray, region: Tuple[float, float, float, float]) -> None:
        """Count one picture.

        Args:
            label: uint8 (H, W), 255 where not scored.
            logits: float32 (C, h, w), coarse.
            region: Top, left, height and width of the picture in the logits, in cells.
        """
        rows, kept_rows = _places(logits.shape[1], region[0], region[2], label.shape[0])
        columns, kept_columns = _places(logits.shape[2], region[1], region[3], label.shape[1])
        cells = logits[:, kept_rows][:, :, kept_columns].reshape(logits.shape[0], -1).astype(np.float64)
        truth = label[np.ix_(rows, columns)].reshape(-1)
        scored = truth != IGNORE_INDEX
        cells, truth = cells[:, scored], truth[scored]
        if not truth.size:
            return
        shares = np.exp(cells - cells.max(axis=0))
        shares /= shares.sum(axis=0)
        answer, confidence = self._answers(shares)
        place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        for column, values in enumerate((np.ones_like(confidence), confidence, (answer == truth).astype(float))):
            self._bins[:, column] += np.bincount(place, values, _BINS)

    def _answers(self, shares: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        own = shares.argmax(axis=0)
        if self._joined is None:
            return own, shares.max(axis=0)
        answer = self._joined[own]
        together = self._joined[: len(shares)][:, None] == answer[None]
        return answer, np.minimum((shares * together).sum(axis=0), 1.0)

    def error(self) -> float:
        """0..1: mean over all answers of their bin's difference of confidence and share of right ones; NaN of none."""
        total = self._bins[:, 0].sum()
        return float(np.abs(self._bins[:, 1] - self._bins[:, 2]).sum() / total) if total else math.nan


def _places(cells: int, start: float, length: float, pixels: int) -> Tuple[np.ndarray, np.ndarray]:
    """Pixels of the label in the middle of each cell, and which cells lie in the picture."""
    where = (np.arange(cells) + 0.5 - start) / length
    kept = (where >= 0) & (where < 1)
    return (where[kept] * pixels).astype(int), kept


@dataclasses.dataclass(frozen=True)
class GroupScores:
    """What a group of classes is worth to a robot.

    Attributes:
        name: Of the group.
        iou: Of all its classes taken for one, 0..1; NaN where no label holds one of them.
        false_rate: Share of the scored pixels outside the group that are called one of its classes, 0..1: for
            ``drivable``, where the robot would drive and must not. NaN where there are none.
        missed_rate: Share of its pixels that are called something else, 0..1.
    """

    name: str
    iou: float
    false_rate: float
    missed_rate: float

    def to_dict(self) -> Dict[str, Optional[float]]:
        """Percent; ``None`` for NaN."""
        values = {"iou": self.iou, "false_rate": self.false_rate, "missed_rate": self.missed_rate}
        return {key: None if math.isnan(value) else round(100 * value, 2) for key, value in values.items()}


def group_scores(name: str, members: Sequence[int], counts: np.ndarray) -> GroupScores:
    """Scores of one group.

    Args:
        name: What it is called.
        members: Its classes.
        counts: int64 (C, C + 1), rows true classes, columns predicted ones and, last, none of them.
    """
    inside = np.zeros(len(counts), bool)
    inside[list(members)] = True
    columns = np.append(inside, False)
    hit, false = counts[inside][:, columns].sum(), counts[~inside][:, columns].sum()
    held, others = counts[inside].sum(), counts[~inside].sum()

    def share(part: int, whole: int) -> float:
        return float(part / whole) if whole else math.nan

    return GroupScores(
        name,
        iou=share(hit, held + false) if held else math.nan,
        false_rate=share(false, others),
        missed_rate=share(held - hit, held),
    )
