"""Picture files whose EXIF says that they are to be turned, written by the specifications."""

from __future__ import annotations

import io
import struct
import zlib

import cv2


def encoded(suffix, picture, settings=()):
    done, content = cv2.imencode(suffix, picture, list(settings))
    assert done
    return content.tobytes()


def exif(orientation, order="<"):
    """EXIF with one tag, as cameras write it."""
    head = b"II*\x00" if order == "<" else b"MM\x00*"
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def turned(suffix, picture, orientation):
    """A file whose pixels are stored as ``picture`` and whose EXIF (in a TIFF, whose tag) says ``orientation``."""
    body = exif(orientation)
    content = encoded(suffix, picture)
    if suffix == ".jpg":
        segment = b"Exif\x00\x00" + body
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    if suffix == ".png":
        chunk = b"eXIf" + body
        return content[:33] + struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    if suffix == ".webp":
        height, width = picture.shape[:2]
        extended = struct.pack("<I", 8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<I", 10) + extended + content[12:]
        chunks += b"EXIF" + struct.pack("<I", len(body)) + body
        return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
    return tiff(picture[..., ::-1], orientation)


def tiff(rgb, orientation):
    """An uncompressed TIFF of one strip."""
    height, width, channels = rgb.shape
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 8), (274, orientation), (277, channels)]
    tags += [(278, height), (279, rgb.size)]
    out = io.BytesIO()
    directory = 8 + rgb.size + 8  # behind the pixels and the three depths
    out.write(b"II*\x00" + struct.pack("<I", directory) + rgb.tobytes() + struct.pack("<HHHH", 8, 8, 8, 0))
    out.write(struct.pack("<H", len(tags)))
    for tag, value in tags:
        count, kind, stored = (3, 3, 8 + rgb.size) if tag == 258 else (1, 4, value)
        out.write(struct.pack("<HHII", tag, kind, count, stored))
    out.write(struct.pack("<I", 0))
    return out.getvalue()
