"""Names of picture files: their suffixes, and the order in which numbers inside names count as numbers."""

from __future__ import annotations

import re
from typing import Tuple

__all__ = ["PICTURE_SUFFIXES", "natural_key"]

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def natural_key(name: str) -> Tuple[Tuple[int, int, str], ...]:
    """Sort key under which numbers inside names count as numbers."""
    parts = re.split(r"(\d+)", name)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts if part), (2, 0, name))
