"""Which part of the network's answer shows the frame."""

from __future__ import annotations

from typing import Optional

from rtda_deploy.spec import ModelSpec
from rtda_runtime.mask.preprocess import Box
from rtda_runtime.mask.upsample import Region

__all__ = ["grid_region"]


def grid_region(spec: ModelSpec, box: Box) -> Optional[Region]:
    """The part of the output grid for a frame that lies in ``box`` of the input; None: all of it."""
    if box == (0, 0, *spec.size_hw):
        return None
    down, across = spec.output_hw[0] / spec.size_hw[0], spec.output_hw[1] / spec.size_hw[1]
    top, left, height, width = box
    return top * down, left * across, height * down, width * across
