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
    return tiff(picture[..., ::-1], orientation, big=suffix == "big.tiff")


def tiff(rgb, orientation, big=False):
    """An uncompressed TIFF, or BigTIFF, of one strip."""
    height, width, channels = rgb.shape
    place, count, start = ("Q", "Q", 16) if big else ("I", "H", 8)
    pixels = rgb.tobytes()
    depths = struct.pack("<HHHH", 8, 8, 8, 0)
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, start), (274, orientation)]
    tags += [(277, channels), (278, height), (279, len(pixels))]
    out = io.BytesIO()
    out.write(b"II+\x00" + struct.pack("<HH", 8, 0) if big else b"II*\x00")
    out.write(struct.pack(f"<{place}", start + len(pixels) + len(depths)) + pixels + depths)
    out.write(struct.pack(f"<{count}", len(tags)))
    for tag, value in tags:
        if tag == 258 and big:  # three depths fit in
            out.write(struct.pack("<HHQ", tag, 3, 3) + depths)
        elif tag == 258:
            out.write(struct.pack("<HHII", tag, 3, 3, start + len(pixels)))
        else:
            out.write(struct.pack(f"<HH{place}{place}", tag, 4, 1, value))
    out.write(struct.pack(f"<{place}", 0))
    return out.getvalue()
