"""What every style is."""

from __future__ import annotations

from torch import Tensor

from rtda_training.adapt.context import StepContext
from rtda_training.adapt.slots import Component

__all__ = ["Style"]


class Style(Component):
    """Changes the source batch before the network sees it; works on raw pixels."""

    def apply(self, context: StepContext) -> Tensor:
        """``context.source_frames`` (still plain) and ``context.target_frames`` -> float32 (N, H, W, 3) BGR 0..255."""
        raise NotImplementedError
