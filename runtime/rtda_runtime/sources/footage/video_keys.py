"""What the bytes of a packet say of the picture in it: is it decoded without any other, is it shown at all?

Containers call more than that a key frame: a point at which H.264 recovers after some frames (intra refresh), or,
where a recorder wrote no table of key frames, each frame.
"""

from __future__ import annotations

import re
from typing import Iterator, Optional, Tuple

__all__ = ["believes_all_keys", "is_shown", "stands_alone", "unit_length_bytes"]

_START = re.compile(b"\0\0\1")
_H264_SLICE, _H264_IDR = 1, 5  # nal_unit_type, Rec. ITU-T H.264, table 7-1
_H264_INTRA = (2, 4)  # slice_type modulo 5: I, SI; table 7-6
_HEVC_SLICES, _HEVC_ALONE = range(32), range(16, 24)  # VCL and IRAP types, Rec. ITU-T H.265, table 7-1
_INTRA_BY_CHOICE = ("ffv1", "png", "tiff")  # may refer to other frames, and their containers know


def stands_alone(codec: str, packet: bytes, length_bytes: Optional[int]) -> bool:
    """Whether a packet that its container calls a key frame is decoded without any other; True where nothing tells.

    Args:
        codec: FFmpeg's name.
        packet: Its bytes.
        length_bytes: Of the number before each unit of H.264 and HEVC in mp4 and mkv; None: they have start codes.
    """
    if codec == "h264":
        kinds = [_h264_alone(unit) for unit in _units(packet, length_bytes) if _type(unit) in (_H264_SLICE, _H264_IDR)]
        return bool(kinds) and all(kinds)
    if codec == "hevc":
        types = [unit[0] >> 1 & 0x3F for unit in _units(packet, length_bytes)]
        return any(kind in _HEVC_ALONE for kind in types if kind in _HEVC_SLICES)
    if codec in ("mpeg1video", "mpeg2video"):  # picture_coding_type, Rec. ITU-T H.262, 6.2.3
        head = _after(packet, b"\0\0\1\0")
        return head is None or len(head) < 2 or head[1] >> 3 & 7 == 1
    if codec == "mpeg4":  # vop_coding_type, ISO/IEC 14496-2, 6.2.5
        head = _after(packet, b"\0\0\1\xb6")
        return head is None or not head or head[0] >> 6 == 0
    return True


def believes_all_keys(codec: str, intra_only: bool) -> bool:
    """Whether it can be true of a codec that each frame stands alone, where no byte was looked at."""
    looked_at = ("av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9")
    return intra_only or codec in looked_at or codec in _INTRA_BY_CHOICE


def is_shown(codec: str, packet: bytes) -> bool:
    """Whether a packet's picture is to be seen; VP8 has some that others are made from only (RFC 6386, 9.1)."""
    return codec != "vp8" or bool(packet[0] & 0x10)


def unit_length_bytes(codec: str, extradata: Optional[bytes]) -> Optional[int]:
    """Bytes of the number before each unit of H.264 or HEVC, by the head of the file; None: start codes.

    Source: ISO/IEC 14496-15, 5.3.3.1 (``avcC``) and 8.3.3.1 (``hvcC``).
    """
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or extradata is None or len(extradata) <= place or extradata[:3] in (b"\0\0\0", b"\0\0\1"):
        return None
    return (extradata[place] & 3) + 1


def _units(packet: bytes, length_bytes: Optional[int]) -> Iterator[bytes]:
    """The first bytes of each unit (NAL) of a packet."""
    if length_bytes is None:
        for found in _START.finditer(packet):
            if found.end() < len(packet):
                yield packet[found.end() : found.end() + 16]
        return
    place = 0
    while place + length_bytes < len(packet):
        size = int.from_bytes(packet[place : place + length_bytes], "big")
        place += length_bytes
        yield packet[place : place + 16]
        place += size


def _type(unit: bytes) -> int:
    return unit[0] & 0x1F


def _h264_alone(unit: bytes) -> bool:
    if _type(unit) == _H264_IDR:
        return True
    bits = "".join(f"{byte:08b}" for byte in unit[1:].replace(b"\0\0\3", b"\0\0"))
    rest = _after_golomb(bits)[1]
    return _after_golomb(rest)[0] % 5 in _H264_INTRA


def _after_golomb(bits: str) -> Tuple[int, str]:
    """An Exp-Golomb number (Rec. ITU-T H.264, 9.1), and the bits after it; -1 where it is cut off."""
    zeros = len(bits) - len(bits.lstrip("0"))
    end = 2 * zeros + 1
    return (int(bits[zeros:end], 2) - 1, bits[end:]) if end <= len(bits) else (-1, "")


def _after(packet: bytes, code: bytes) -> Optional[bytes]:
    place = packet.find(code)
    return None if place < 0 else packet[place + len(code) : place + len(code) + 4]
