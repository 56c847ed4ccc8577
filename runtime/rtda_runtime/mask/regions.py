"""Parts of a picture: the one that a user asks for, and where the network's answer shows the frame."""

from __future__ import annotations

import dataclasses
from typing import Optional, Tuple

from rtda_deploy.errors import ConfigError
from rtda_deploy.spec import ModelSpec
from rtda_runtime.mask.preprocess import Box
from rtda_runtime.mask.upsample import Region

__all__ = ["RegionOfInterest", "grid_region"]


@dataclasses.dataclass(frozen=True)
class RegionOfInterest:
    """A rectangle of the picture, as fractions of its sides, so that it fits a camera of any size.

    Attributes:
        left, top, right, bottom: 0..1; right and bottom are the first column and row outside.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise ConfigError(
                f"{self} is no part of a picture",
                hint="LEFT,TOP,RIGHT,BOTTOM as fractions: 0,0.5,1,1 is the lower half",
            )

    def __str__(self) -> str:
        return f"{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"

    @classmethod
    def parse(cls, text: str) -> RegionOfInterest:
        """``0,0.5,1,1``: left, top, right, bottom.

        Raises:
            ConfigError: If it is anything else.
        """
        parts = text.split(",")
        try:
            left, top, right, bottom = (float(part) for part in parts)
        except ValueError:
            raise ConfigError(
                f"region {text!r} is not four numbers",
                hint="LEFT,TOP,RIGHT,BOTTOM as fractions: 0,0.5,1,1 is the lower half",
            ) from None
        return cls(left, top, right, bottom)

    def slices(self, size_hw: Tuple[int, int]) -> Tuple[slice, slice]:
        """Rows and columns of a picture of that size; at least one of each."""
        height, width = size_hw
        top, left = min(round(self.top * height), height - 1), min(round(self.left * width), width - 1)
        bottom, right = max(round(self.bottom * height), top + 1), max(round(self.right * width), left + 1)
        return slice(top, bottom), slice(left, right)


def grid_region(spec: ModelSpec, box: Box) -> Optional[Region]:
    """The part of the output grid for a frame that lies in ``box`` of the input; None: all of it."""
    if box == (0, 0, *spec.size_hw):
        return None
    down, across = spec.output_hw[0] / spec.size_hw[0], spec.output_hw[1] / spec.size_hw[1]
    top, left, height, width = box
    return top * down, left * across, height * down, width * across
