"""Points of accuracy and time, the frontier of the best, and the sentence that says which one to take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

__all__ = ["Point", "Variant", "choice", "frontier", "sentence"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is compared: a model at an input size and a precision.

    Attributes:
        model: ``.pth`` or ``.onnx``.
        size_hw: Of the network's input.
        precision: Name of a row of :data:`rtda_export.precision.PRECISIONS`.
        name: Of the model, told from those of the others.
    """

    model: Path
    size_hw: Tuple[int, int]
    precision: str
    name: str

    @property
    def title(self) -> str:
        """``name at WxH, precision``."""
        return f"{self.name} at {self.size_hw[1]}x{self.size_hw[0]}, {self.precision}"


@dataclasses.dataclass(frozen=True)
class Point:
    """A variant, how right it is and how long it takes.

    Attributes:
        variant: Which.
        file: What was made of it.
        miou: Percent on the data; None: no data.
        ms: Median time, milliseconds: of a frame to its mask here, or expected of the network alone on another device.
        low_ms: Smallest of the rounds' medians; of an estimate, the lower end of its range.
        high_ms: Largest of them; of an estimate, the upper end.
        runs_on: What ran it.
    """

    variant: Variant
    file: Path
    miou: Optional[float]
    ms: float
    low_ms: float
    high_ms: float
    runs_on: str = ""

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready: ``model``, ``name``, ``size`` (WxH), ``precision``, ``file``, ``miou`` (percent or null), ``ms``,
        ``low_ms``, ``high_ms``, ``per_second``, ``runs_on``."""
        height, width = self.variant.size_hw
        return {
            "model": str(self.variant.model),
            "name": self.variant.name,
            "size": f"{width}x{height}",
            "precision": self.variant.precision,
            "file": str(self.file),
            "miou": self.miou,
            "ms": self.ms,
            "low_ms": self.low_ms,
            "high_ms": self.high_ms,
            "per_second": 1e3 / self.ms,
            "runs_on": self.runs_on,
        }


def frontier(points: Sequence[Point]) -> List[Point]:
    """Those that no other beats: none is as fast and as right, and faster or more right. The fastest first.

    Without accuracy that is the fastest alone. Of two that are equal in both the first stays.
    """
    best: List[Point] = []
    for point in sorted(points, key=lambda entry: (entry.ms, -(entry.miou or 0.0))):
        if not best or (point.miou or 0.0) > (best[-1].miou or 0.0):
            best.append(point)
    return best


def choice(points: Sequence[Point], per_second: float) -> Optional[Point]:
    """The most right of those that keep the rate, the fastest of these where accuracy is unknown; None: none does."""
    kept = [point for point in frontier(points) if 1e3 / point.ms >= per_second]
    return max(kept, key=lambda point: (point.miou or 0.0, -point.ms), default=None)


def sentence(points: Sequence[Point], per_second: float, where: str) -> str:
    """Which to take for a rate, for people.

    Args:
        points: Not empty.
        per_second: Masks wanted each second.
        where: ``here``, or ``on`` and the name of a device.
    """
    taken = choice(points, per_second)
    if taken is None:
        fastest = min(points, key=lambda point: point.ms)
        return (
            f"for {per_second:g} masks a second {where}: none; the fastest is {fastest.variant.title}, "
            f"{1e3 / fastest.ms:.1f} a second. A smaller --size, or another network"
        )
    score = "" if taken.miou is None else f"{taken.miou:.1f} mIoU, "
    return f"for {per_second:g} masks a second {where}: {taken.variant.title} ({score}{taken.ms:.1f} ms)"
