"""The kernel of :mod:`rtda_runtime.mask.upsample` in NumPy: what runs where numba is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rtda_runtime.mask.upsample import GridPlan

__all__ = ["fill_mask"]

_MIXED = 255  # never a class: a spec has at most 255 classes, 0..254
_BAND_PIXELS = 1 << 17  # pixels worked on at a time: bounds the memory, stays in the cache


def fill_mask(logits: np.ndarray, plan: GridPlan, mask: np.ndarray) -> bool:
    """Fill ``mask`` uint8 (H, W) from float32 (C, h, w); False where a logit is NaN or infinite."""
    if not np.isfinite(logits).all():
        return False
    coarse = logits.argmax(axis=0).astype(np.uint8)  # (h, w)
    cells = coarse.copy()  # class of the cell between a logit and its right, lower and diagonal neighbours, or _MIXED
    # Edge cells compare with themselves. A region that ends inside the grid treats its last cell as an inner one: more
    # pixels may count as mixed, the class is the same.
    right = np.concatenate([coarse[:, 1:], coarse[:, -1:]], axis=1)
    agree = coarse == right
    agree &= np.concatenate([agree[1:], agree[-1:]], axis=0)
    agree[:-1] &= coarse[:-1] == coarse[1:]
    cells[~agree] = _MIXED
    wide = cells.take(plan.left, axis=1)  # (h, W)
    mixed = _MixedCells(logits, np.flatnonzero(cells == _MIXED))
    rows_at_once = max(1, _BAND_PIXELS // mask.shape[1])
    for start in range(0, mask.shape[0], rows_at_once):
        band = slice(start, min(start + rows_at_once, mask.shape[0]))
        np.take(wide, plan.top[band], axis=0, out=mask[band], mode="clip")
        mixed.fill(mask[band], plan, band)
    return True


class _MixedCells:
    """The cells where more than one class wins, each with the classes that can win in it.

    A class can win in a cell only if its largest corner is at least the largest of all classes' smallest corners.
    Inside a cell its logit is ``a + x b + y c + x y d``; subtracting the same base from all classes of a cell changes
    no winner and keeps the full precision of float32 whatever the offset of the logits.
    """

    def __init__(self, logits: np.ndarray, cells: np.ndarray) -> None:
        count, height, width = logits.shape
        self.number = np.full(height * width, -1, np.int32)  # grid cell -> place among the mixed ones
        self.number[cells] = np.arange(cells.size, dtype=np.int32)
        self.grid_width = width
        row, column = np.divmod(cells, width)
        below, beside = np.minimum(row + 1, height - 1), np.minimum(column + 1, width - 1)
        flat = logits.reshape(count, -1)
        corners = [
            flat.take(index, axis=1)  # (C, M)
            for index in (cells, row * width + beside, below * width + column, below * width + beside)
        ]
        least = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
        most = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
        base = least.max(axis=0) if cells.size else np.empty(0, np.float32)  # (M,)
        place, self.classes = np.nonzero((most >= base).T)  # sorted by cell, then by class
        self.counts = np.bincount(place, minlength=cells.size)  # (M,) candidates
        self.first = np.cumsum(self.counts) - self.counts
        a, b, c, d = (corner[self.classes, place] - base[place] for corner in corners)
        self.terms = np.stack([a, b - a, c - a, (d - c) - (b - a)], axis=1)  # (P, 4)
        self.classes = self.classes.astype(np.uint8)

    def fill(self, mask: np.ndarray, plan: GridPlan, band: slice) -> None:
        """Evaluate the pixels of ``mask`` that are still marked as mixed."""
        pixels = np.flatnonzero(mask.reshape(-1) == _MIXED)
        if not pixels.size:
            return
        row, column = np.divmod(pixels, mask.shape[1])
        cell = self.number.take((plan.top[band] * self.grid_width).take(row) + plan.left.take(column))
        y, x = plan.down[band].take(row), plan.right_share.take(column)
        weights = np.stack([np.ones_like(x), x, y, x * y], axis=1)  # (N, 4)
        pair = self.first.take(cell)
        best = np.einsum("ij,ij->i", self.terms.take(pair, axis=0), weights)
        winner = self.classes.take(pair)
        rivals = self.counts.take(cell) - 1  # candidates of the pixel that were not looked at yet
        left = place = np.flatnonzero(rivals)  # which of the pixels at hand go on; which pixels of the band those are
        while left.size:
            pair, rivals, weights = pair.take(left) + 1, rivals.take(left) - 1, weights.take(left, axis=0)
            value = np.einsum("ij,ij->i", self.terms.take(pair, axis=0), weights)
            wins = np.flatnonzero(value > best.take(place))
            best[place.take(wins)] = value.take(wins)
            winner[place.take(wins)] = self.classes.take(pair.take(wins))
            left = np.flatnonzero(rivals)
            place = place.take(left)
        mask.reshape(-1)[pixels] = winner
