"""The difference hash of a picture: 64 bits by which near-duplicates are found.

Source: N. Krawetz, "Kind of Like That", hackerfactor.com, 2013.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DHASH_CELLS_WH", "dhash", "hamming"]

DHASH_CELLS_WH = 9, 8  # of the grey copy that is hashed: eight differences in each of eight rows


def dhash(cells: Any) -> int:
    """Whether each of 8x8 cells is brighter than its neighbour to the left, as 64 bits, row by row.

    Args:
        cells: np.ndarray, uint8 (8, 9), the picture in grey, each cell the mean of its part.
    """
    brighter = (cells[:, 1:] > cells[:, :-1]).ravel().tolist()
    return int("".join("1" if bit else "0" for bit in brighter), 2)


def hamming(a: int, b: int) -> int:
    """Bits in which two hashes differ."""
    return bin(a ^ b).count("1")
