"""What the bytes of a picture file say before anything decodes them: kind, size, orientation, and whether it is whole.

OpenCV is not asked, because its versions differ: 4.x fills the missing rows of half a JPEG with whatever lay in memory
and returns it as a picture. Nothing here walks over pixels: a JPEG of 100 kB takes about 0.1 ms.

Sources: ITU-T T.81 (JPEG), ISO/IEC 15948 (PNG), RFC 9649 (WEBP), TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from rtda_deploy.pictures.content_kind import kind_of
from rtda_deploy.pictures.tiff_tags import ORIENTATION, exif_orientation, tiff_tags

__all__ = ["PictureFacts", "jpeg_is_whole", "look"]

SizeWh = Tuple[int, int]

# In a JPEG, the next marker: not a stuffed zero, a fill byte or a restart, which belong to the scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _APP0, _APP1, _TEM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0x01
_START = b"\xff\xd8\xff"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF_HUFFMAN_DCT = (0xC0, 0xC1, 0xC2)
_JPEG_PIXELS_PER_BYTE = 512  # at most: a code of one bit for each block of 8x8 pixels
_DEFLATE_RATIO = 1032  # at most, of zlib
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM_BITS = re.compile(rb"P([14])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s")
_PNM_VALUES = re.compile(rb"P([2356])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})\s")


class PictureFacts(NamedTuple):
    """What a picture file says of itself.

    Attributes:
        kind: As :func:`~rtda_deploy.pictures.content_kind.kind_of`; nothing else is known where it is no picture.
        size_wh: Width and height as stored, from the header; None where it is not found.
        fault: Why it is not whole, such as "its end marker is missing"; empty where it is whole, as far as its kind
            can tell (PNG, JPEG, WEBP, BMP, TIFF and binary PNM are looked at).
        orientation: EXIF's 1..8; 1 is as stored.
        bits: Bits per channel, where they are known.
        lossy: Whether its values are near those that were saved, and not the same: useless for labels.
    """

    kind: str
    size_wh: Optional[SizeWh] = None
    fault: str = ""
    orientation: int = 1
    bits: Optional[int] = None
    lossy: bool = False


def look(content: bytes) -> PictureFacts:
    """What the bytes of a file say; no error for any content."""
    kind = kind_of(content)
    reader = _READERS.get(kind)
    return reader(content) if reader else PictureFacts(kind, lossy=kind in ("avif", "heic", "jpeg2000"))


def jpeg_is_whole(content: bytes) -> bool:
    """Whether a JPEG goes from its start marker to its end marker; what follows the end (padding) is not looked at."""
    return kind_of(content) == "jpeg" and not _jpeg(content).fault


def _jpeg(content: bytes) -> PictureFacts:
    place, frame, orientation, scans = 2, 0, 1, 0
    size_wh: Optional[SizeWh] = None
    bits: Optional[int] = None
    fault = "its end marker is missing"
    while True:
        found = _MARKER.search(content, place)
        if found is None:
            break
        marker, place = content[found.start() + 1], found.end()
        if marker == _EOI:
            fault = "" if scans else "it ends before its pixels"
            break
        if marker == _SOI:
            fault = "another picture starts before its end"
            break
        if marker == _TEM:
            continue
        if place + 2 > len(content):
            break
        (length,) = struct.unpack_from(">H", content, place)
        segment = content[place + 2 : place + length]
        if length < 2 or len(segment) < length - 2:
            break
        if marker < _APP0 and _START in segment:  # an application's own segment may hold a thumbnail
            fault = "another picture starts before its end"
            break
        if marker in _SOF and len(segment) >= 5:
            frame, (bits, height, width) = marker, struct.unpack_from(">BHH", segment)
            size_wh = (width, height) if width and height else None
        elif marker == _APP1 and segment[:6] == b"Exif\x00\x00" and orientation == 1:
            orientation = exif_orientation(segment)
        scans += marker == _SOS
        place += length
    few = size_wh and size_wh[0] * size_wh[1] > _JPEG_PIXELS_PER_BYTE * len(content)
    if not fault and few and frame in _SOF_HUFFMAN_DCT:
        fault = "it holds less data than a picture of its size needs"
    return PictureFacts("jpeg", size_wh, fault, orientation, bits, lossy=True)


def _png(content: bytes) -> PictureFacts:
    place, orientation, data = 8, 1, 0
    facts = PictureFacts("png", fault="its end is missing")
    needed = 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        name = bytes(content[place + 4 : place + 8])
        if place + 12 + length > len(content):
            break
        (stated,) = struct.unpack_from(">I", content, place + 8 + length)
        critical = not name[0] & 0x20
        if critical and stated != zlib.crc32(memoryview(content)[place + 4 : place + 8 + length]) & 0xFFFFFFFF:
            return facts._replace(fault="a checksum in it is wrong", orientation=orientation)
        if name == b"IHDR" and length >= 13 and place == 8:
            width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
            facts = facts._replace(size_wh=(width, height), bits=bits)
            needed = height * ((width * bits * _PNG_CHANNELS.get(colour, 1) + 7) // 8)
        elif name == b"eXIf":
            orientation = exif_orientation(content[place + 8 : place + 8 + length])
        elif name == b"IDAT":
            data += length
        elif name == b"IEND":
            short = not data or needed > _DEFLATE_RATIO * data
            fault = "it holds less data than a picture of its size needs" if short else ""
            return facts._replace(fault=fault, orientation=orientation)
        place += 12 + length
    return facts._replace(orientation=orientation)


def _webp(content: bytes) -> PictureFacts:
    (length,) = struct.unpack_from("<I", content.ljust(8, b"\x00"), 4)
    facts = PictureFacts("webp", bits=8, fault="its end is missing" if length + 8 > len(content) else "")
    place, seen = 12, False
    while place + 8 <= len(content):
        name, (size,) = bytes(content[place : place + 4]), struct.unpack_from("<I", content, place + 4)
        body = content[place + 8 : place + 8 + min(size, 1 << 16)]
        if name == b"VP8X" and len(body) >= 10:
            width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
            facts = facts._replace(size_wh=(width, height))
        elif name == b"VP8 " and len(body) >= 10:
            width, height = (word & 0x3FFF for word in struct.unpack_from("<HH", body, 6))
            facts, seen = facts._replace(size_wh=facts.size_wh or (width, height), lossy=True), True
        elif name == b"VP8L" and len(body) >= 5:
            (packed,) = struct.unpack_from("<I", body, 1)
            size_wh = ((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
            facts, seen = facts._replace(size_wh=facts.size_wh or size_wh), True
        elif name == b"ANMF":
            facts, seen = facts._replace(lossy=facts.lossy or b"VP8 " in body[16:64]), True
        elif name == b"EXIF":
            facts = facts._replace(orientation=exif_orientation(body))
        place += 8 + size + (size & 1)
    return facts if seen or facts.fault else facts._replace(fault="it ends before its pixels")


def _bmp(content: bytes) -> PictureFacts:
    if len(content) < 34:
        return PictureFacts("bmp", fault="its end is missing")
    offset, header = struct.unpack_from("<II", content, 10)
    if header == 12:
        (width, height, _, depth), compression = struct.unpack_from("<HHHH", content, 18), 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", content, 18)
    height = abs(height)
    if width <= 0 or not height:
        return PictureFacts("bmp", fault="its size makes no sense")
    row = (width * depth + 7) // 8
    needed = offset + (row + 3) // 4 * 4 * (height - 1) + row
    cut = compression in (0, 3) and needed > len(content)  # the others are run lengths
    return PictureFacts("bmp", (width, height), "its end is missing" if cut else "", bits=8)


def _tiff(content: bytes) -> PictureFacts:
    tags = tiff_tags(content)

    def first(tag: int, otherwise: int) -> int:
        return (tags.get(tag) or (otherwise,))[0]

    width, height = (first(tag, 0) for tag in (256, 257))
    starts, lengths = tags.get(273, ()) or tags.get(324, ()), tags.get(279, ()) or tags.get(325, ())
    cut = () in tags.values() or not starts or any(sum(strip) > len(content) for strip in zip(starts, lengths))
    orientation = first(ORIENTATION, 1)
    return PictureFacts(
        "tiff",
        (width, height) if width and height else None,
        "its end is missing" if cut or not width or not height else "",
        orientation if 1 <= orientation <= 8 else 1,
        first(258, 1),
        lossy=first(259, 1) in (6, 7, 34892),  # JPEG; 34892 is that of DNG
    )


def _pnm(content: bytes) -> PictureFacts:
    found = _PNM_BITS.match(content) or _PNM_VALUES.match(content)
    if found is None:
        return PictureFacts("pnm", fault="its header makes no sense")
    kind, width, height, *largest = (int(number) for number in found.groups())
    wide = bool(largest) and largest[0] > 255
    row = width * (3 if kind == 6 else 1) * (2 if wide else 1) if largest else (width + 7) // 8
    cut = kind > 3 and found.end() + row * height > len(content)  # 1, 2 and 3 are written as text
    return PictureFacts("pnm", (width, height), "its end is missing" if cut else "", bits=16 if wide else 8)


def _gif(content: bytes) -> PictureFacts:
    if len(content) < 10:
        return PictureFacts("gif", fault="its end is missing")
    width, height = struct.unpack_from("<HH", content, 6)
    return PictureFacts("gif", (width, height), bits=8)


_READERS: Dict[str, Callable[[bytes], PictureFacts]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
    "pnm": _pnm,
    "gif": _gif,
}
