"""The class of every camera pixel from the network's coarse logits, without upsampling the logits.

Bilinear upsampling followed by argmax is what segmentation papers evaluate, and at camera size it costs more than many
networks. An upsampled logit is a convex combination of the four coarse logits around it; so where the same class wins
at all four, it wins everywhere between them and nothing has to be interpolated. Only the pixels of mixed cells are
evaluated, and there only the classes that can win: those whose best corner reaches the best worst corner of any class.

Sampling follows ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` and ``cv2.resize``: pixel
centres at half steps, clamped at the edges. The result is that of resize-then-argmax except where the two best logits
are equal to float32 rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Optional, Tuple

import numpy as np

from rtda_deploy.errors import EngineError, FrameError

__all__ = ["GridPlan", "Region", "grid_plan", "resize_mask", "target_array", "upsample_argmax"]

Region = Tuple[float, float, float, float]  # top, left, height, width in cells of the coarse grid

_MIXED = 255  # never a class: a spec has at most 255 classes, 0..254
_BAND_PIXELS = 1 << 17  # pixels worked on at a time: bounds the memory, stays in the cache


def upsample_argmax(
    logits: np.ndarray,
    size_hw: Tuple[int, int],
    *,
    region: Optional[Region] = None,
    out: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Class index per pixel at ``size_hw``: bilinear resize of the logits, then argmax.

    Args:
        logits: float32 (C, h, w), at most 255 classes.
        size_hw: Height and width of the mask, any; smaller than the logits too.
        region: Part of the grid that the mask covers: (top, left, height, width) in grid cells, fractions allowed;
            cells whose centre lies outside are not looked at. None: all of it. A letterboxed frame uses this.
        out: uint8 ``size_hw`` to write into; None: a new array.

    Returns:
        uint8 ``size_hw``. Where two classes tie, either may win.

    Raises:
        EngineError: If the logits hold NaN or infinity; a mask made of those would look like any other.
        FrameError: If ``logits``, ``size_hw`` or ``out`` is not as said.
    """
    if logits.ndim != 3 or 0 in logits.shape or logits.shape[0] > _MIXED:
        raise FrameError(f"logits are {logits.shape}, expected (classes, h, w) with 1 to 255 classes")
    if logits.dtype != np.float32:
        raise FrameError(f"logits are {logits.dtype}, expected float32", hint="logits.astype(np.float32)")
    if not np.isfinite(logits).all():
        raise EngineError(
            "the network gave NaN or infinite logits",
            hint="an fp16 overflow? export with --precision fp32 and compare: rtda-deploy verify A B --frames PATH",
        )
    mask = target_array(size_hw, out)
    plan = grid_plan(logits.shape[1:], mask.shape, region)
    _fill_mask(logits, plan, mask)
    return mask


def resize_mask(
    mask: np.ndarray, size_hw: Tuple[int, int], *, region: Optional[Region] = None, out: Optional[np.ndarray] = None
) -> np.ndarray:
    """Nearest-neighbour resize of a class mask uint8 (h, w), for networks that give a mask; arguments as above."""
    target = target_array(size_hw, out)
    plan = grid_plan(mask.shape, target.shape, region)
    # The nearer of the two neighbours of each pixel, per axis.
    rows = np.where(plan.down < 0.5, plan.top, plan.bottom)
    columns = np.where(plan.right_share < 0.5, plan.left, plan.right)
    np.take(mask.take(columns, axis=1), rows, axis=0, out=target, mode="clip")
    return target


@dataclasses.dataclass(frozen=True, eq=False)
class GridPlan:
    """Which four cells every row and column of the mask lies between, and how far along."""

    top: np.ndarray  # intp (H,)
    bottom: np.ndarray  # intp (H,)
    down: np.ndarray  # float32 (H,) share of the bottom row
    left: np.ndarray  # intp (W,)
    right: np.ndarray  # intp (W,)
    right_share: np.ndarray  # float32 (W,)


@functools.lru_cache(maxsize=16)
def grid_plan(grid_hw: Tuple[int, int], size_hw: Tuple[int, int], region: Optional[Region]) -> GridPlan:
    """Where the pixels of a ``size_hw`` picture lie on a grid, or on a ``region`` of it."""
    top, left, height, width = region or (0.0, 0.0, float(grid_hw[0]), float(grid_hw[1]))
    rows = _axis(grid_hw[0], size_hw[0], top, height)
    columns = _axis(grid_hw[1], size_hw[1], left, width)
    return GridPlan(*rows, *columns)


def _axis(cells: int, pixels: int, start: float, extent: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower neighbour, upper neighbour and share of the upper one for every pixel of one axis."""
    first = min(cells - 1, max(0, math.ceil(start - 0.5)))  # first and last cell whose centre lies in the region
    last = min(cells - 1, max(first, math.floor(start + extent - 0.5)))
    at = start + (np.arange(pixels) + 0.5) * (extent / pixels) - 0.5
    at = np.clip(at, first, last)
    lower = np.floor(at).astype(np.intp)
    return lower, np.minimum(lower + 1, last), (at - lower).astype(np.float32)


def target_array(size_hw: Tuple[int, int], out: Optional[np.ndarray]) -> np.ndarray:
    """``out`` if it is a uint8 array of that size, a new one if it is None.

    Raises:
        FrameError: If it is neither.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise FrameError(f"size_hw is {tuple(size_hw)}, both must be positive")
    if out is None:
        return np.empty((height, width), np.uint8)
    if out.dtype != np.uint8 or out.shape != (height, width) or not out.flags.c_contiguous:
        raise FrameError(f"out is {out.dtype} {out.shape}, expected C-contiguous uint8 ({height}, {width})")
    return out


def _fill_mask(logits: np.ndarray, plan: GridPlan, mask: np.ndarray) -> None:
    """Fill ``mask``. A compiled kernel has this signature."""
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
