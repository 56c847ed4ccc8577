"""Videos made for tests: the number of each frame can be read back from its pixels."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import av
import numpy as np

BITS = 8
SIZE_WH = (96, 64)


def numbered(number: int, size_wh: Tuple[int, int] = SIZE_WH) -> np.ndarray:
    """A picture with a bar for each bit of its number, uint8 (H, W, 3) BGR."""
    width, height = size_wh
    picture = np.full((height, width, 3), 40, np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            picture[height // 4 : 3 * height // 4, bit * bar : (bit + 1) * bar] = 220
    return picture


def number_of(image: np.ndarray) -> int:
    """What :func:`numbered` wrote into it, whatever a codec made of it."""
    height, width = image.shape[:2]
    bar = width // BITS
    return int(sum((image[height // 2, bit * bar + bar // 2].mean() > 130) << bit for bit in range(BITS)))


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 24,
    options: Optional[Dict[str, str]] = None,
    pixels: str = "yuv420p",
    times_ms: Optional[Sequence[int]] = None,
    container: Optional[str] = None,
    size_wh: Tuple[int, int] = SIZE_WH,
) -> Path:
    """Frames 0, 1, 2 ... at 25 a second, or at their times."""
    with av.open(f"file:{path}", "w", format=container) as opened:
        stream: Any = opened.add_stream(codec, rate=25, options=options or {"g": "10"})
        stream.width, stream.height, stream.pix_fmt = *size_wh, pixels
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none:keyint=10"}
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, size_wh), format="bgr24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            opened.mux(stream.encode(frame))
        opened.mux(stream.encode())
    return path


def numbers_of(images: Sequence[np.ndarray]) -> List[int]:
    return [number_of(image) for image in images]


def turned(path: Path, matrix: Sequence[int]) -> Path:
    """Write the matrix (a, b, c, d) into the film's track header."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
