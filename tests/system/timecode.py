"""A clock drawn into a picture, so that its age can be read from what was decoded: 48 black or white blocks.

The value is CLOCK_MONOTONIC (``time.monotonic_ns`` on Linux) in tenths of a millisecond, with a check sum, so that a
block that was smeared by a codec is noticed. Drawing is plain Python, because the system's Python has no NumPy.
"""

from __future__ import annotations

import time
from typing import Any, Optional

BLOCK_PX = 16
PER_ROW = 24
VALUE_BITS, CHECK_BITS = 40, 8
UNIT_NS = 100_000
WIDTH_PX, HEIGHT_PX = BLOCK_PX * PER_ROW, BLOCK_PX * 2
_BLACK, _WHITE = 16, 235  # of video luma


def now() -> int:
    """Tenths of a millisecond."""
    return time.monotonic_ns() // UNIT_NS


def draw(luma: bytearray, width: int, value: int) -> None:
    """Write ``value`` into the top left corner of ``luma``, the rows of a picture ``width`` pixels wide."""
    bits = (value % (1 << VALUE_BITS)) << CHECK_BITS | _check(value)
    for row in range(2):
        line = b"".join(
            bytes([_WHITE if bits >> (row * PER_ROW + column) & 1 else _BLACK]) * BLOCK_PX for column in range(PER_ROW)
        )
        for y in range(row * BLOCK_PX, (row + 1) * BLOCK_PX):
            luma[y * width : y * width + WIDTH_PX] = line


def read(image: Any) -> Optional[int]:
    """The value in a picture, uint8 (H, W, 3) or (H, W); None where there is none, or it is damaged."""
    if image.shape[0] < HEIGHT_PX or image.shape[1] < WIDTH_PX:
        return None
    corner = image[:HEIGHT_PX, :WIDTH_PX]
    grey = corner.mean(axis=2) if corner.ndim == 3 else corner
    inner = grey.reshape(2, BLOCK_PX, PER_ROW, BLOCK_PX)[:, 4:12, :, 4:12].mean(axis=(1, 3)).reshape(-1)
    bits = sum(1 << place for place, level in enumerate(inner) if level > 127)
    value = bits >> CHECK_BITS
    return value if _check(value) == bits % (1 << CHECK_BITS) else None


def age_ms(image: Any) -> Optional[float]:
    """How long ago the picture was drawn."""
    drawn = read(image)
    return None if drawn is None else (time.monotonic_ns() - drawn * UNIT_NS) / 1e6


def _check(value: int) -> int:
    return value * 2654435761 >> 8 & 0xFF ^ 0xA5
