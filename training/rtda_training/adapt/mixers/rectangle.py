"""A rectangle of a given area, of random shape and place."""

from __future__ import annotations

import numpy as np

__all__ = ["rectangle"]


def rectangle(rng: np.random.Generator, area: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right; the logarithm of the height's share is uniform between ``area`` and 1."""
    share = area ** rng.random()
    rows, columns = max(1, round(share * height)), max(1, round(area / share * width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return top, top + rows, left, left + columns
