"""Motion JPEG without a container: pictures cut out of a stream of bytes, whatever stands between them.

Cameras send JPEGs over HTTP with and without boundaries, headers and lengths. The markers inside a JPEG tell where it
ends, so what stands between two of them is not needed.

Source: ITU-T T.81, annex B (markers and segments of a JPEG).
"""

from __future__ import annotations

import re
from typing import List, Optional

__all__ = ["JpegSplitter", "holds_jpegs"]

_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan: not a stuffed zero, a fill byte or a restart
_SOI, _EOI, _SOS, _FIRST_APP, _LAST_APP = 0xD8, 0xD9, 0xDA, 0xE0, 0xEF
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a segment
_NO_TEXT = re.compile(rb"[^\t\r\n\x20-\x7e]")
_OTHER_TEXT = (b"<", b"#EXT", b"{")  # web pages, play lists
_HEAD_BYTES = 1 << 16  # of what may stand before the first picture
_LARGEST_BYTES = 1 << 26  # of one picture; beyond, the stream is lost


def holds_jpegs(head: bytes) -> Optional[bool]:
    """Whether a stream that begins so is a sequence of JPEGs, with only text before the first; None: read more."""
    start = head.find(_START)
    before = head[:start] if start >= 0 else head[:-1] if head.endswith((b"\xff", b"\xff\xd8")) else head
    before = before[:-1] if start < 0 and before.endswith(b"\xff") else before
    if _NO_TEXT.search(before) or before.lstrip().startswith(_OTHER_TEXT):
        return False
    if start >= 0:
        return True
    return None if len(head) < _HEAD_BYTES else False


class JpegSplitter:
    """Cuts JPEGs out of bytes that come piece by piece; each is returned as soon as its last byte is there.

    A truncated one is returned, too: :func:`rtda_deploy.pictures.whole.jpeg_is_whole` tells them apart.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._place = 0  # looked at so far
        self._begun = False
        self._in_scan = False

    def feed(self, piece: bytes) -> List[bytes]:
        """The pictures that end in ``piece``."""
        self._bytes += piece
        pictures: List[bytes] = []
        while self._step(pictures):
            pass
        if len(self._bytes) > _LARGEST_BYTES:
            self._end(len(self._bytes), pictures)
        return pictures

    def rest(self) -> List[bytes]:
        """At the end of the stream: the picture that was cut off by it, if one was."""
        pictures: List[bytes] = []
        if self._begun:
            self._end(len(self._bytes), pictures)
        return pictures

    def _step(self, pictures: List[bytes]) -> bool:
        """Go on by one marker; False: more bytes are needed."""
        if not self._begun:
            return self._find_start()
        return self._scan(pictures) if self._in_scan else self._segment(pictures)

    def _find_start(self) -> bool:
        start = self._bytes.find(_START)
        del self._bytes[: start if start >= 0 else max(0, len(self._bytes) - 2)]
        self._begun, self._in_scan, self._place = start >= 0, False, 2
        return self._begun

    def _segment(self, pictures: List[bytes]) -> bool:
        data, place = self._bytes, self._place
        if len(data) < place + 4:
            # The end marker is two bytes, and the last ones there may be.
            return len(data) >= place + 2 and data[place] == 0xFF and data[place + 1] == _EOI and self._scan(pictures)
        marker = data[place + 1]
        if data[place] != 0xFF:
            self._end(place, pictures)
        elif marker in (_SOI, _EOI):
            return self._scan(pictures)
        elif marker == 0xFF or marker in _ALONE:
            self._place += 1 if marker == 0xFF else 2
        else:
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            if len(data) < place + 2 + length:
                return False
            inner = -1 if _FIRST_APP <= marker <= _LAST_APP else data.find(_START, place, place + 2 + length)
            if length < 2 or inner >= 0:  # cut off in its header, and the next one has begun
                self._end(max(inner, place + 2), pictures)
            else:
                self._place, self._in_scan = place + 2 + length, marker == _SOS
        return True

    def _scan(self, pictures: List[bytes]) -> bool:
        found = _MARKER.search(self._bytes, self._place)
        if found is None:
            self._place = max(self._place, len(self._bytes) - 1)
            return False
        self._place, self._in_scan = found.start(), False
        marker = self._bytes[found.start() + 1]
        if marker in (_SOI, _EOI):
            self._end(found.start() + (2 if marker == _EOI else 0), pictures)
        return True

    def _end(self, end: int, pictures: List[bytes]) -> None:
        with memoryview(self._bytes) as view, view[:end] as picture:  # one copy, not two
            pictures.append(bytes(picture))
        del self._bytes[:end]
        self._begun = self._in_scan = False
        self._place = 0
