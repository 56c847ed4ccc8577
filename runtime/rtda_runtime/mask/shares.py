"""How much of which class a mask shows, or a region of it."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

import numpy as np

from rtda_deploy.errors import FrameError
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.regions import RegionOfInterest

__all__ = ["ClassCounts", "check_mask", "class_shares", "count_classes"]


class ClassCounts(NamedTuple):
    """What is in a mask, or in a region of it.

    Attributes:
        shares: Class name to share of the labelled pixels, 0..1, in the spec's order, adding up to 1; all 0 where no
            pixel has a class.
        unlabelled: Share of all pixels that have no class, 0..1: ``ignore_index``, such as outside ``--region``.
    """

    shares: Dict[str, float]
    unlabelled: float


def count_classes(mask: np.ndarray, spec: ModelSpec, region: Optional[RegionOfInterest] = None) -> ClassCounts:
    """Count the pixels of each class, in a third of a millisecond at 1280x720.

    Args:
        mask: uint8 (H, W) class indices.
        spec: Whose ``class_names`` are the keys, in order.
        region: None: all of the picture.

    Raises:
        FrameError: If ``mask`` is no uint8 (H, W).
    """
    check_mask(mask)
    cv2: Any = opencv("to count classes")
    part = mask if region is None else mask[region.slices((mask.shape[0], mask.shape[1]))]
    pixels = cv2.calcHist([part], [0], None, [256], [0, 256]).reshape(256)[: spec.num_classes].astype(np.float64)
    labelled = float(pixels.sum())
    shares = pixels / max(1.0, labelled)
    return ClassCounts(dict(zip(spec.class_names, shares.tolist())), 1.0 - labelled / max(1, part.size))


def class_shares(mask: np.ndarray, spec: ModelSpec, region: Optional[RegionOfInterest] = None) -> Dict[str, float]:
    """:func:`count_classes`, the shares alone: of each class among the labelled pixels, adding up to 1."""
    return count_classes(mask, spec, region).shares


def check_mask(mask: np.ndarray) -> None:
    """Check that ``mask`` is one.

    Raises:
        FrameError: If it is no uint8 (H, W).
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise FrameError(
            f"a mask is uint8 (H, W), this is {mask.dtype} {mask.shape}", hint="give result.mask, or one like it"
        )
