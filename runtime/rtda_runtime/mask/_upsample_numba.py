"""The kernel of :mod:`rtda_runtime.mask.upsample`, compiled by numba where it is installed; no lock of Python is held.

It works cell by cell: between four coarse logits that the same class wins, the cell is filled; else each of its pixels
is evaluated for the classes that can win there.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

if TYPE_CHECKING:
    from rtda_runtime.mask.upsample import GridPlan

__all__ = ["compiled", "fill_mask"]

_log = logging.getLogger(__name__)


def fill_mask(logits: np.ndarray, plan: GridPlan, mask: np.ndarray) -> bool:
    """Fill ``mask`` uint8 (H, W) from float32 (C, h, w); False where a logit is NaN or infinite."""
    logits = np.ascontiguousarray(logits)  # one layout: compiled once
    best = np.empty(logits.shape[1:], np.float32)
    coarse = np.empty(logits.shape[1:], np.uint8)
    coarse_classes, fill_cells = compiled()
    if not coarse_classes(logits, best, coarse):
        return False
    terms, classes = _scratch(logits.shape[0])
    axes = (plan.top, plan.bottom, plan.down, plan.left, plan.right, plan.right_share)
    fill_cells(logits, coarse, *axes, mask, terms, classes)
    return True


def _scratch(count: int) -> Tuple[np.ndarray, np.ndarray]:
    """Room for the classes that can win in a cell. Made here, because a kernel that allocates does so without Python's
    lock, which tracemalloc does not survive.
    """
    return np.empty((4, count), np.float32), np.empty(count, np.uint8)


@functools.lru_cache(maxsize=1)
def compiled() -> Tuple[Any, Any]:
    """The two loops below as machine code, kept on the disk for the next program where there is room for it.

    Raises:
        ImportError: If numba is not installed, or does not go with this NumPy.
    """
    from numba import njit

    try:
        return _compiled(njit(nogil=True, cache=True))
    except (OSError, RuntimeError) as err:  # a full disk; no folder that can be written to
        _log.info("the compiled mask kernel cannot be kept on the disk, every start compiles it anew: %s", err)
        return _compiled(njit(nogil=True))


def _compiled(compile_: Any) -> Tuple[Any, Any]:
    """Both loops, called once on a single cell: numba compiles, and writes, at the first call."""
    coarse_classes, fill_cells = compile_(_coarse_classes), compile_(_fill_cells)
    mask, first, share = np.zeros((1, 1), np.uint8), np.zeros(1, np.intp), np.zeros(1, np.float32)
    logits = np.zeros((1, 1, 1), np.float32)
    coarse_classes(logits, np.zeros((1, 1), np.float32), mask)
    fill_cells(logits, mask, first, first, share, first, first, share, mask, *_scratch(1))
    return coarse_classes, fill_cells


def _coarse_classes(logits: np.ndarray, best: np.ndarray, classes: np.ndarray) -> bool:
    """Fill ``classes`` uint8 (h, w) with the winner of each coarse logit; gives whether all logits are finite.

    Args:
        logits: float32 (C, h, w).
        best: float32 (h, w), written over.
        classes: uint8 (h, w), written over.
    """
    count, height, width = logits.shape
    spoilt = np.float32(0)  # stays 0 unless a logit is NaN or infinite
    for row in range(height):
        for column in range(width):
            value = logits[0, row, column]
            spoilt += value * np.float32(0)
            best[row, column] = value
            classes[row, column] = 0
        for number in range(1, count):
            for column in range(width):
                value = logits[number, row, column]
                spoilt += value * np.float32(0)
                if value > best[row, column]:
                    best[row, column] = value
                    classes[row, column] = number
    return bool(spoilt == 0)


def _fill_cells(
    logits: np.ndarray,
    coarse: np.ndarray,
    top: np.ndarray,
    bottom: np.ndarray,
    down: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    right_share: np.ndarray,
    mask: np.ndarray,
    terms: np.ndarray,
    number_of: np.ndarray,
) -> None:
    """Fill ``mask``; the arrays before it are those of a ``GridPlan``, those after it are written over."""
    count = logits.shape[0]
    height, width = mask.shape
    # Per candidate: its value at the upper left corner, and how that changes.
    base_a, along_x, along_y, along_xy = terms[0], terms[1], terms[2], terms[3]
    row = 0
    while row < height:
        end_row = row + 1
        while end_row < height and top[end_row] == top[row]:
            end_row += 1
        t, b = top[row], bottom[row]
        for inner in range(row + 1, end_row):  # the last cell of a region: rows on its edge have bottom == top
            b = max(b, bottom[inner])
        column = 0
        while column < width:
            end_column = column + 1
            while end_column < width and left[end_column] == left[column]:
                end_column += 1
            lf, rt = left[column], right[column]
            for inner in range(column + 1, end_column):
                rt = max(rt, right[inner])
            winner = coarse[t, lf]
            if coarse[t, rt] == winner and coarse[b, lf] == winner and coarse[b, rt] == winner:
                for y in range(row, end_row):
                    for x in range(column, end_column):
                        mask[y, x] = winner
            else:
                base = np.float32(-np.inf)  # the best of the classes' worst corners
                for number in range(count):
                    least = min(
                        min(logits[number, t, lf], logits[number, t, rt]),
                        min(logits[number, b, lf], logits[number, b, rt]),
                    )
                    base = max(base, least)
                candidates = 0
                for number in range(count):
                    va, vb = logits[number, t, lf], logits[number, t, rt]
                    vc, vd = logits[number, b, lf], logits[number, b, rt]
                    if max(max(va, vb), max(vc, vd)) >= base:
                        # The same base off all classes changes no winner and keeps float32's precision.
                        va, vb, vc, vd = va - base, vb - base, vc - base, vd - base
                        base_a[candidates] = va
                        along_x[candidates] = vb - va
                        along_y[candidates] = vc - va
                        along_xy[candidates] = (vd - vc) - (vb - va)
                        number_of[candidates] = number
                        candidates += 1
                for y in range(row, end_row):
                    share_y = down[y]
                    for x in range(column, end_column):
                        share_x = right_share[x]
                        place = 0
                        highest = (base_a[0] + share_y * along_y[0]) + share_x * (along_x[0] + share_y * along_xy[0])
                        for candidate in range(1, candidates):
                            value = (base_a[candidate] + share_y * along_y[candidate]) + share_x * (
                                along_x[candidate] + share_y * along_xy[candidate]
                            )
                            if value > highest:
                                highest = value
                                place = candidate
                        mask[y, x] = number_of[place]
            column = end_column
        row = end_row
