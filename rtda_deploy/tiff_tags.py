"""The tags of a TIFF file's first picture. EXIF, in whatever file it lies, is such a TIFF without a picture.

Source: TIFF 6.0 (Adobe, 1992), section 2; EXIF 2.3 (CIPA DC-008), orientation: tag 274.
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, Tuple

__all__ = ["ORIENTATION", "exif_orientation", "tiff_tags", "with_orientation_1"]

ORIENTATION = 274
_FORMATS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG; other types hold no whole numbers that are asked for here


def tiff_tags(content: bytes) -> Dict[int, Tuple[int, ...]]:
    """The whole-number tags of the first directory, by their numbers; no value where a tag points outside.

    A BigTIFF, a directory that is cut off, and anything that is no TIFF, has none.
    """
    order = "<" if content[:2] == b"II" else ">"
    tags: Dict[int, Tuple[int, ...]] = {}
    for place in _entries(content):
        tag, kind, values = struct.unpack_from(f"{order}HHI", content, place)
        if kind not in _FORMATS:
            continue
        form = f"{order}{values}{_FORMATS[kind]}" if values <= len(content) else ""
        if form and struct.calcsize(form) > 4:
            (place_of_values,) = struct.unpack_from(f"{order}I", content, place + 8)
        else:
            place_of_values = place + 8
        there = form and place_of_values + struct.calcsize(form) <= len(content)
        tags.setdefault(tag, struct.unpack_from(form, content, place_of_values) if there else ())
    return tags


def exif_orientation(exif: bytes) -> int:
    """1..8, how a picture is to be turned to be shown; 1 (as it is) where EXIF does not say."""
    start = 6 if exif[:6] == b"Exif\x00\x00" else 0
    value = tiff_tags(exif[start:]).get(ORIENTATION, (1,))
    return value[0] if value and 1 <= value[0] <= 8 else 1


def with_orientation_1(content: bytes) -> bytes:
    """The same classic TIFF with an orientation of 1, so that every decoder gives the pixels as they are stored."""
    order = "<" if content[:2] == b"II" else ">"
    for place in _entries(content):
        tag, kind, _ = struct.unpack_from(f"{order}HHI", content, place)
        if tag == ORIENTATION and kind in _FORMATS:
            value = struct.pack(f"{order}{_FORMATS[kind]}", 1).ljust(4, b"\x00")
            return content[: place + 8] + value + content[place + 12 :]
    return content


def _entries(content: bytes) -> Iterator[int]:
    """Where the entries of the first directory start."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(content[:4]))
    if order is None or len(content) < 8:
        return
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    if start + 2 > len(content):
        return
    (count,) = struct.unpack_from(f"{order}H", content, start)
    end = start + 2 + 12 * count
    if end <= len(content):
        yield from range(start + 2, end, 12)
