"""Palette PNGs as the indices they store.

OpenCV turns a palette into colours, and the ids of a GTA5 label are lost. Filters work on bytes and know nothing of
palettes, so the same compressed bytes are also a grey picture, interlaced or not: with a new header and without its
palette, OpenCV gives the stored values, at its own speed. It stretches 1, 2 and 4 bits to 0..255, evenly, so a division
gives them back.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.optional import require
from rtda_deploy.pictures.decode import decode_stored

__all__ = ["GREY", "GREY_ALPHA", "PALETTE", "PngHeader", "png_header", "stored_bytes"]

_COPY_AGAIN = "copy it again, or leave it out"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">IIBBBBB")  # width, height, depth, colour type, compression, filter, interlace
GREY, PALETTE, GREY_ALPHA = 0, 3, 4  # colour types; 2 and 6 are RGB and RGBA


class PngHeader(NamedTuple):
    """What the first chunk of a PNG says; ``depth`` in bits per channel."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool


def png_header(content: bytes) -> Optional[PngHeader]:
    """The header of a PNG file, of which the first 33 bytes are enough; None for anything else."""
    if not content.startswith(_SIGNATURE) or content[12:16] != b"IHDR" or len(content) < 29:
        return None
    width, height, depth, colour_type, _, _, interlace = _IHDR.unpack(content[16:29])
    return PngHeader(width, height, depth, colour_type, bool(interlace))


def stored_bytes(content: bytes, path: Path) -> np.ndarray:
    """The values that a palette or grey PNG of at most 8 bits stores, without palette and without scaling.

    Returns:
        uint8 (H, W).

    Raises:
        DataError: If the file is cut off or not of this kind; ``path`` is named.
    """
    header = png_header(content)
    if header is None or header.colour_type not in (GREY, PALETTE) or header.depth not in (1, 2, 4, 8):
        raise DataError(f"{path} is no PNG of indices (one channel of at most 8 bits)", hint="save class ids as PNG")
    grey = _IHDR.pack(header.width, header.height, header.depth, GREY, 0, 0, header.interlaced)
    pixels = b"".join(_chunk(b"IDAT", body) for kind, body in _chunks(content, path) if kind == b"IDAT")
    cv2 = require("cv2", extra="runtime", purpose="to read labels")
    plain = _SIGNATURE + _chunk(b"IHDR", grey) + pixels + _chunk(b"IEND", b"")
    stretched = decode_stored(cv2, plain, f"label {path}", DataError)
    if stretched.shape != (header.height, header.width) or stretched.dtype != np.uint8:
        raise DataError(f"label {path} is a damaged PNG", hint=_COPY_AGAIN)
    step = 255 // ((1 << header.depth) - 1)
    if step == 1:
        return np.asarray(stretched)
    values, rest = np.divmod(stretched, np.uint8(step))
    if rest.any():
        raise DataError(f"label {path} of {header.depth} bits was not decoded as stored", hint="save it with 8 bits")
    return np.asarray(values, dtype=np.uint8)


def _chunks(content: bytes, path: Path) -> Iterator[Tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        stated = content[place + 8 + length : place + 12 + length]
        if len(body) < length or stated != struct.pack(">I", zlib.crc32(kind + body) & 0xFFFFFFFF):
            break
        if kind == b"IEND":
            return
        yield kind, body
        place += 12 + length
    raise DataError(f"label {path} is a damaged PNG: it is cut off or its checksum is wrong", hint=_COPY_AGAIN)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) & 0xFFFFFFFF)
