"""The kernel of :mod:`rtda_runtime.mask.upsample`, compiled by numba where it is installed; no lock of Python is held.

It works cell by cell: between four coarse logits that the same class wins, the cell is filled; then each pixel of the
other cells is evaluated for the classes that can win there.
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
    coarse_classes, fill_plain, fill_mixed = compiled()
    if not coarse_classes(logits, best, coarse):
        return False
    rows, columns = plan.row_cells, plan.column_cells
    mixed = np.empty((len(rows) * len(columns), 2), np.intp)
    count = fill_plain(coarse, rows, columns, mask, mixed)
    fill_mixed(logits, rows, columns, plan.down, plan.right_share, mixed[:count], mask, *_scratch(logits.shape[0]))
    return True


def _scratch(count: int) -> Tuple[np.ndarray, np.ndarray]:
    """Room for the classes that can win in a cell. Made here, because a kernel that allocates does so without Python's
    lock, which tracemalloc does not survive.
    """
    return np.empty((4, count), np.float32), np.empty(count, np.uint8)


@functools.lru_cache(maxsize=1)
def compiled() -> Tuple[Any, Any, Any]:
    """The three loops below as machine code, kept on the disk for the next program where there is room for it.

    Raises:
        ImportError: If numba is not installed, or does not go with this NumPy.
    """
    from numba import njit

    try:
        return _compiled(njit(nogil=True, cache=True))
    except (OSError, RuntimeError) as err:  # a full disk; no folder that can be written to
        _log.info("the compiled mask kernel cannot be kept on the disk, every start compiles it anew: %s", err)
        return _compiled(njit(nogil=True))


def _compiled(compile_: Any) -> Tuple[Any, Any, Any]:
    """The loops, called once on a single cell: numba compiles, and writes, at the first call."""
    coarse_classes, fill_plain, fill_mixed = (compile_(loop) for loop in (_coarse_classes, _fill_plain, _fill_mixed))
    logits, mask, share = np.zeros((1, 1, 1), np.float32), np.zeros((1, 1), np.uint8), np.zeros(1, np.float32)
    cells, mixed = np.array([[0, 1, 0, 0]], np.intp), np.zeros((1, 2), np.intp)
    coarse_classes(logits, np.zeros((1, 1), np.float32), mask)
    fill_plain(mask, cells, cells, mask, mixed)
    fill_mixed(logits, cells, cells, share, share, mixed, mask, *_scratch(1))
    return coarse_classes, fill_plain, fill_mixed


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


def _fill_plain(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray, mask: np.ndarray, mixed: np.ndarray) -> int:
    """Fill the cells at whose corners the same class wins; gives how many others there are.

    Args:
        coarse: uint8 (h, w).
        rows: ``GridPlan.row_cells``; columns alike.
        mask: uint8 (H, W), written over in those cells.
        mixed: intp (cells, 2), written over: row and column of each of the others among ``rows`` and ``columns``.
    """
    others = 0
    for row in range(rows.shape[0]):
        first_y, end_y, top, bottom = rows[row, 0], rows[row, 1], rows[row, 2], rows[row, 3]
        for column in range(columns.shape[0]):
            left, right = columns[column, 2], columns[column, 3]
            winner = coarse[top, left]
            if coarse[top, right] == winner and coarse[bottom, left] == winner and coarse[bottom, right] == winner:
                for y in range(first_y, end_y):
                    for x in range(columns[column, 0], columns[column, 1]):
                        mask[y, x] = winner
            else:
                mixed[others, 0] = row
                mixed[others, 1] = column
                others += 1
    return others


def _fill_mixed(
    logits: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    down: np.ndarray,
    right_share: np.ndarray,
    mixed: np.ndarray,
    mask: np.ndarray,
    terms: np.ndarray,
    number_of: np.ndarray,
) -> None:
    """Fill the ``mixed`` cells of ``mask``; other arrays as of :func:`_fill_plain`, ``GridPlan``, :func:`_scratch`."""
    # Per candidate: its value at the upper left corner, and how that changes.
    base_a, along_x, along_y, along_xy = terms[0], terms[1], terms[2], terms[3]
    for cell in range(mixed.shape[0]):
        row, column = mixed[cell, 0], mixed[cell, 1]
        t, b, lf, rt = rows[row, 2], rows[row, 3], columns[column, 2], columns[column, 3]
        base = np.float32(-np.inf)  # the best of the classes' worst corners
        for number in range(logits.shape[0]):
            upper = min(logits[number, t, lf], logits[number, t, rt])
            base = max(base, min(upper, min(logits[number, b, lf], logits[number, b, rt])))
        candidates = 0
        for number in range(logits.shape[0]):
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
        for y in range(rows[row, 0], rows[row, 1]):
            share_y = down[y]
            for x in range(columns[column, 0], columns[column, 1]):
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
