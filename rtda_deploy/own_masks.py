"""Masks that a network wrote, told from labels: a text chunk of the PNG, which other programs do not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Union

__all__ = ["is_own_mask", "marked"]

_HEADER = 33  # bytes of a PNG's signature and its first chunk
_WRITER = b"tEXtSoftware\0rtda-deploy"  # decoders ignore it
_MARK = struct.pack(">I", len(_WRITER) - 4) + _WRITER + struct.pack(">I", zlib.crc32(_WRITER))


def marked(png: bytes) -> bytes:
    """The content of a PNG with the mark that :func:`is_own_mask` knows."""
    return png[:_HEADER] + _MARK + png[_HEADER:]


def is_own_mask(path: Union[str, Path]) -> bool:
    """Whether a file is a mask that ``run --masks`` or ``run --collect`` wrote, and no label or photograph."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_HEADER + len(_MARK))[_HEADER:] == _MARK
    except OSError:
        return False
