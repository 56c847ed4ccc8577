"""How sure the network is of each pixel of a mask: the softmax probability of the class that won.

The logits are interpolated first and turned into probabilities then, as an exported graph's ``confidence`` output does
it. That is an exponential per class and camera pixel, far more than the mask costs; so it is made only on demand.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_runtime.mask.upsample import Region, grid_plan, target_array

__all__ = ["confidence_from_logits"]

_BAND_VALUES = 1 << 19  # logits worked on at a time: 2 MiB, stays in the cache


def confidence_from_logits(
    logits: np.ndarray,
    size_hw: Tuple[int, int],
    *,
    region: Optional[Region] = None,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Probability of the winning class per pixel, in steps of 1/255.

    Args:
        logits: float32 (C, h, w), finite.
        size_hw: Height and width of the answer.
        region: As in :func:`rtda_runtime.upsample_argmax`.
        out: uint8 ``size_hw`` to write into; None: a new array.

    Returns:
        uint8 ``size_hw``: 255 is certain; with C classes it is never below 255 / C.

    Raises:
        FrameError: If ``logits``, ``size_hw`` or ``out`` is not as said.
    """
    if logits.ndim != 3 or 0 in logits.shape or logits.dtype != np.float32:
        raise FrameError(
            f"logits are {logits.dtype} {logits.shape}, expected float32 (classes, h, w)",
            hint="give what Engine.infer gave, one picture's logits without a batch",
        )
    target = target_array(size_hw, out)
    count = logits.shape[0]
    plan = grid_plan(logits.shape[1:], target.shape, region)
    # Across first: the coarse grid has few rows.
    left, right = logits.take(plan.left, axis=2), logits.take(plan.right, axis=2)  # (C, h, W)
    wide = left + (right - left) * plan.right_share
    rows_at_once = max(1, _BAND_VALUES // (count * target.shape[1]))
    for start in range(0, target.shape[0], rows_at_once):
        band = slice(start, min(start + rows_at_once, target.shape[0]))
        upper, lower = wide.take(plan.top[band], axis=1), wide.take(plan.bottom[band], axis=1)
        lower -= upper
        lower *= plan.down[band, None]
        lower += upper  # (C, rows, W)
        lower -= lower.max(axis=0)
        np.exp(lower, out=lower)
        target[band] = np.rint(255.0 / lower.sum(axis=0))
    return target
