"""What the mask and the confidence at camera size are held against: the logits enlarged in float64."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np


def upsampled(
    logits: np.ndarray, size_hw: Tuple[int, int], region: Optional[Tuple[float, float, float, float]] = None
) -> np.ndarray:
    """The upsampled logits (C, H, W) in float64: half-pixel centres, clamped to the cells centred in the region."""
    large = logits.astype(np.float64)
    top, left, height, width = region or (0.0, 0.0, *logits.shape[1:])
    for axis, (start, extent, target) in enumerate(((top, height, size_hw[0]), (left, width, size_hw[1])), 1):
        last = int(np.floor(start + extent - 0.5))
        at = np.clip(start + (np.arange(target) + 0.5) * extent / target - 0.5, np.ceil(start - 0.5), last)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
        large = np.take(large, low, axis) * (1 - share) + np.take(large, np.minimum(low + 1, last), axis) * share
    return large
