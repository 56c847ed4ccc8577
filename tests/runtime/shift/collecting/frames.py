"""Results as a small network would give them, each unlike the others or much like one."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
from runtime.models import tiny_spec

from rtda_runtime import Result

SPEC = tiny_spec()
SIZE_HW = (64, 96)


def picture(seed: int) -> np.ndarray:
    """uint8 (64, 96, 3): 8x8 cells of random colours, so that no two seeds look alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return np.repeat(np.repeat(cells, 8, axis=0), 8, axis=1)


def mask(seed: int) -> np.ndarray:
    """uint8 (64, 96): blocks of the five classes."""
    cells = np.random.default_rng(seed).integers(0, SPEC.num_classes, (4, 6), np.uint8)
    return np.repeat(np.repeat(cells, 16, axis=0), 16, axis=1)


def result_of(seed: int, at_s: float, *, sure: Optional[float] = None, **changes: Any) -> Result:
    """A result of a recording that is ``at_s`` seconds old."""
    values = {
        "frame": picture(seed),
        "mask": mask(seed),
        "captured_ns": round(at_s * 1e9),  # names are made of it: frames of one moment could change places
        "sequence": seed,
        "dropped": 0,
        "timing": {},
        "spec": SPEC,
        "recorded_ns": round(at_s * 1e9),
        "live": False,
    }
    if sure is not None:
        values["confidence"] = np.full(SIZE_HW, round(255 * sure), np.uint8)
    return Result(**{**values, **changes})
