"""The tags of a TIFF file's first picture. EXIF, in whatever file it lies, is such a TIFF without a picture.

Source: TIFF 6.0 (Adobe, 1992), section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html); EXIF 2.3
(CIPA DC-008), orientation: tag 274.
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

__all__ = ["ORIENTATION", "exif_orientation", "tiff_tags", "with_orientation_1"]

ORIENTATION = 274
_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8; other types hold no whole numbers asked for


class _Form(NamedTuple):
    """How numbers are written, as formats of ``struct``: a place in the file, and the number of a directory's tags."""

    order: str
    start: int  # where the place of the first directory stands
    place: str
    number: str


_FORMS = {
    b"II*\x00": _Form("<", 4, "I", "H"),
    b"MM\x00*": _Form(">", 4, "I", "H"),
    b"II+\x00": _Form("<", 8, "Q", "Q"),
    b"MM\x00+": _Form(">", 8, "Q", "Q"),
}


def tiff_tags(content: bytes) -> Dict[int, Tuple[int, ...]]:
    """The whole-number tags of the first directory, by their numbers; no value where a tag points outside.

    A directory that is cut off, and anything that is no TIFF, has none.
    """
    tags: Dict[int, Tuple[int, ...]] = {}
    for form, place, tag, kind, values in _entries(content):
        head, room = struct.calcsize(f"{form.order}HH{form.place}"), struct.calcsize(form.place)
        code = f"{form.order}{values}{_FORMATS[kind]}" if values <= len(content) else ""
        place += head
        if code and struct.calcsize(code) > room:
            (place,) = struct.unpack_from(f"{form.order}{form.place}", content, place)
        there = code and place + struct.calcsize(code) <= len(content)
        tags.setdefault(tag, struct.unpack_from(code, content, place) if there else ())
    return tags


def exif_orientation(exif: bytes) -> int:
    """1..8, how a picture is to be turned to be shown; 1 (as it is) where EXIF does not say."""
    start = 6 if exif[:6] == b"Exif\x00\x00" else 0
    value = tiff_tags(exif[start:]).get(ORIENTATION, (1,))
    return value[0] if value and 1 <= value[0] <= 8 else 1


def with_orientation_1(content: bytes) -> bytes:
    """The same TIFF with an orientation of 1, so that every decoder gives the pixels as they are stored."""
    for form, place, tag, kind, _ in _entries(content):
        if tag == ORIENTATION:
            head, room = struct.calcsize(f"{form.order}HH{form.place}"), struct.calcsize(form.place)
            value = struct.pack(f"{form.order}{_FORMATS[kind]}", 1).ljust(room, b"\x00")
            return content[: place + head] + value + content[place + head + room :]
    return content


def _entries(content: bytes) -> Iterator[Tuple[_Form, int, int, int, int]]:
    """The form of numbers; where an entry of the first directory starts; its tag, type and number of values."""
    form: Optional[_Form] = _FORMS.get(bytes(content[:4]))
    if form is None or len(content) < form.start + 8:
        return
    (start,) = struct.unpack_from(f"{form.order}{form.place}", content, form.start)
    first = start + struct.calcsize(form.number)
    if first > len(content):
        return
    (count,) = struct.unpack_from(f"{form.order}{form.number}", content, start)
    size = struct.calcsize(f"{form.order}HH{form.place}{form.place}")
    if first + count * size > len(content):
        return
    for place in range(first, first + count * size, size):
        tag, kind, values = struct.unpack_from(f"{form.order}HH{form.place}", content, place)
        if kind in _FORMATS:
            yield form, place, tag, kind, values
