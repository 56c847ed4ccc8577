"""How much the network doubts a chosen frame: its own confidence, its answer to the mirror image, a second network.

A second engine of the same network, opened on the collector's thread, gives confidence and the answer to the mirror
image, so that the loop's own network computes nothing more. It looks at a few chosen frames a minute.
"""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple, Optional

import numpy as np

from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result

__all__ = ["Doubt", "Doubter"]


class Doubt(NamedTuple):
    """What is doubted of a frame.

    Attributes:
        scores: Those of ``unsure`` (1 - mean confidence), ``flip`` (share of the pixels that are of another class in
            the mirror image) and ``compare`` (in the mask of the second network) that are known, 0 to 1.
        confidence: uint8 (H, W), 255 is certain; None: the network does not say.
        where: float32 (H, W), how much each pixel is doubted, the largest of the three; None: nothing is known.
    """

    scores: Dict[str, float]
    confidence: Optional[np.ndarray]
    where: Optional[np.ndarray]

    @property
    def disagreement(self) -> float:
        """The largest of the scores; 1 where there is none, so that novelty alone decides."""
        return max(self.scores.values(), default=1.0)

    def subject(self, mask: np.ndarray, num_classes: int) -> Optional[int]:
        """The class that most of the doubt is in; without any doubt, the smallest class that is there.

        Args:
            mask: uint8 (H, W) class indices.
        """
        inside = mask < num_classes
        if not inside.any():
            return None
        counts = np.bincount(mask[inside], minlength=num_classes)
        if self.where is not None:
            doubted = np.bincount(mask[inside], weights=self.where[inside], minlength=num_classes)
            if doubted.max() > 0:
                return int(doubted.argmax())
        return int(np.where(counts > 0, counts, counts.max() + 1).argmin())


class Doubter:
    """Looks at chosen frames.

    Args:
        engine: Opens the second engine, when it is first needed and on the thread that needs it; None: there is none.
        flip: Whether it also looks at the mirror images.
    """

    def __init__(self, engine: Optional[Callable[[], AnySegmenter]], *, flip: bool) -> None:
        self._open = engine if flip else None
        self._engine: Optional[AnySegmenter] = None

    def __call__(self, result: Result) -> Doubt:
        """Doubt of a frame.

        Raises:
            RtdaError: What the engine raises.
        """
        if self._engine is None and self._open is not None:
            self._engine = self._open()
        confidence, mirrored = result.confidence, None
        if self._engine is not None:
            if confidence is None:
                confidence = self._engine.segment(result.frame).confidence
            flipped = self._engine.segment(np.ascontiguousarray(result.frame[:, ::-1]))
            mirrored = flipped.mask[:, ::-1]
        return _doubt(result, confidence, mirrored)

    def close(self) -> None:
        """Close the engine. Calling it again does nothing."""
        if self._engine is not None:
            self._engine.close()


def _doubt(result: Result, confidence: Optional[np.ndarray], mirrored: Optional[np.ndarray]) -> Doubt:
    known = result.mask != result.spec.ignore_index
    where: Optional[np.ndarray] = None
    scores: Dict[str, float] = {}
    parts = {
        "unsure": None if confidence is None else 1.0 - confidence.astype(np.float32) / 255.0,
        "flip": None if mirrored is None else (mirrored != result.mask).astype(np.float32),
        "compare": None if result.compared is None else (result.compared != result.mask).astype(np.float32),
    }
    for name, part in parts.items():
        if part is not None:
            part = np.where(known, part, np.float32(0.0))
            scores[name] = float(part.sum() / max(1, int(known.sum())))
            where = part if where is None else np.maximum(where, part)
    return Doubt(scores, confidence, where)
