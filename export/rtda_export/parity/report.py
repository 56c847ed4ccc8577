"""What a comparison of two models found: its figures, its verdict, and how they are written for people."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from rtda_export.precision import Limit

__all__ = ["ClassParity", "FrameParity", "ParityReport", "exponent", "percent"]


@dataclasses.dataclass(frozen=True)
class FrameParity:
    """One picture: its name, the largest logit difference (None: no logits), the share of pixels that agree."""

    name: str
    max_abs: Optional[float]
    agreement: float

    @property
    def badness(self) -> Tuple[float, float]:
        """Agreement, then the largest difference: the smaller, the worse."""
        return self.agreement, -(self.max_abs or 0.0)


@dataclasses.dataclass(frozen=True)
class ClassParity:
    """One class over all pictures.

    Attributes:
        name: Of the class.
        pixels: That the reference gave this class.
        agreement: Share of these that the other side gives it too; None where the reference never gives it.
        iou: Of both sides' pixels of this class; None where neither gives it.
    """

    name: str
    pixels: int
    agreement: Optional[float]
    iou: Optional[float]


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """What a comparison found.

    Attributes:
        a: Name of the reference.
        b: Name of the file that was checked against it.
        limit: What was asked of it.
        max_abs: Largest difference of any logit; None where a side gives masks only.
        logit_range: Largest minus smallest logit of the reference over all pictures; None where there are none.
        agreement: Share of all pixels with the same class, 0..1.
        pixels: Pixels compared.
        pixels_differing: Those with another class.
        frames: One entry per picture.
        classes: One entry per class.
        confusion: Pixels by class of the reference (row) and of the other side (column).
        page: ``verify.html``, where one was asked for.
        notes: What a reader of the figures must know of how they were made.
    """

    a: str
    b: str
    limit: Limit
    max_abs: Optional[float]
    logit_range: Optional[float]
    agreement: float
    pixels: int
    pixels_differing: int
    frames: Tuple[FrameParity, ...] = dataclasses.field(repr=False)
    classes: Tuple[ClassParity, ...] = dataclasses.field(repr=False)
    confusion: Tuple[Tuple[int, ...], ...] = dataclasses.field(repr=False)
    page: Optional[Path] = None
    notes: Tuple[str, ...] = ()

    @property
    def relative(self) -> Optional[float]:
        """``max_abs`` as a share of ``logit_range``; None where there are no logits."""
        if self.max_abs is None or self.logit_range is None:
            return None
        if self.max_abs == 0:
            return 0.0
        return self.max_abs / self.logit_range if self.logit_range > 0 else math.inf

    @property
    def worst(self) -> int:
        """Index of the frame with the least agreement, and of these the largest difference."""
        return min(range(len(self.frames)), key=lambda i: self.frames[i].badness)

    @property
    def missed(self) -> List[str]:
        """The limits that were missed, each as a sentence; empty where it passed."""
        found = []
        relative = self.relative
        if self.limit.logit is not None and relative is not None and not relative <= self.limit.logit:
            found.append(f"logits differ by {relative:.1e} of their range, the limit is {self.limit.logit:.0e}")
        if not self.agreement >= self.limit.agreement:
            found.append(f"{percent(self.agreement)} of pixels agree, the limit is {percent(self.limit.agreement)}")
        return found

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.missed

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; what ``verify --json`` prints. Shares are 0..1.

        ``a``, ``b``: file names, the reference first. ``limit``: ``name``, ``agreement``, ``logit`` (null: none).
        ``passed``, ``missed``: verdict and its reasons. ``max_abs_logit``, ``logit_range``, ``relative_logit`` (null:
        a side gives masks only).
        ``agreement``, ``pixels``, ``pixels_differing``. ``worst_frame``: name. ``frames``: ``name``, ``max_abs_logit``,
        ``agreement``. ``classes``: ``name``, ``pixels``, ``agreement``, ``iou`` (null: class not seen).
        ``page``: path of ``verify.html`` or null. ``notes``: how a file was run, where it could not be run as meant.
        """
        return {
            "a": self.a,
            "b": self.b,
            "limit": self.limit._asdict(),
            "passed": self.passed,
            "missed": self.missed,
            "max_abs_logit": self.max_abs,
            "logit_range": self.logit_range,
            "relative_logit": self.relative if self.relative is not None and math.isfinite(self.relative) else None,
            "agreement": self.agreement,
            "pixels": self.pixels,
            "pixels_differing": self.pixels_differing,
            "worst_frame": self.frames[self.worst].name,
            "frames": [
                {"name": frame.name, "max_abs_logit": frame.max_abs, "agreement": frame.agreement}
                for frame in self.frames
            ],
            "classes": [dataclasses.asdict(entry) for entry in self.classes],
            "page": None if self.page is None else str(self.page),
            "notes": list(self.notes),
        }


def percent(share: float) -> str:
    """A share as text, with digits enough that 100 % means all, and never rounded up past a limit."""
    if share == 1.0:
        return "100 %"
    return f"{math.floor(share * 1e5) / 1e3:.3f} %"


def exponent(value: Optional[float]) -> str:
    """A difference as text; empty where there is none."""
    return "" if value is None else f"{value:.2e}"
