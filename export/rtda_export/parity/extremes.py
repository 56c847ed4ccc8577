"""The best and the worst picture of an evaluation, kept small enough for a page."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Optional, Tuple

import numpy as np

from rtda_runtime._opencv import opencv
from rtda_training.labels import IGNORE_INDEX

__all__ = ["Extremes", "ScoredPicture"]

_WIDTH = 640  # pixels; wider ones are reduced


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPicture:
    """One picture, what the model made of it, and the truth; all of one size.

    Attributes:
        name: What the set calls it.
        right: Share of its scored pixels that have the right class.
        frame: uint8 (h, w, 3) BGR.
        mask: uint8 (h, w), the predicted class of the scored ones.
        truth: uint8 (h, w), 255 where nothing is scored.
    """

    name: str
    right: float
    frame: np.ndarray
    mask: np.ndarray
    truth: np.ndarray


class Extremes:
    """Looks at every picture and keeps two of them."""

    def __init__(self) -> None:
        self._worst: Optional[ScoredPicture] = None
        self._best: Optional[ScoredPicture] = None

    def add(self, name: str, frame: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> None:
        """Look at a picture; ``mask`` and ``truth`` are of one size. One without a scored pixel is passed over."""
        scored = truth != IGNORE_INDEX
        if not scored.any():
            return
        right = float((mask == truth)[scored].mean())
        worst = self._worst is None or right < self._worst.right
        best = self._best is None or right > self._best.right
        if worst or best:
            picture = ScoredPicture(name, right, *_small(frame, mask, truth))
            self._worst = picture if worst else self._worst
            self._best = picture if best else self._best

    def pictures(self) -> Tuple[ScoredPicture, ...]:
        """The worst and the best; one where they are the same, none where nothing was scored."""
        found: List[ScoredPicture] = []
        for picture in (self._worst, self._best):
            if picture is not None and not any(picture is other for other in found):
                found.append(picture)
        return tuple(found)


def _small(frame: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    cv2: Any = opencv("to show pictures")
    height, width = truth.shape
    size_wh = (min(width, _WIDTH), max(1, round(height * min(width, _WIDTH) / width)))
    small = cv2.resize(frame, size_wh, interpolation=cv2.INTER_AREA)
    masks = (cv2.resize(array, size_wh, interpolation=cv2.INTER_NEAREST) for array in (mask, truth))
    return (small, *masks)
