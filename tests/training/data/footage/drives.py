"""Small drives for tests: streets of coloured blocks, each second of which looks unlike the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, List

import numpy as np

FPS = 10
SIZE_WH = (96, 64)


def street(number: int) -> np.ndarray:
    """A frame unlike any of another number, sharp, uint8 (64, 96, 3) BGR."""
    blocks = np.random.default_rng(number).integers(30, 220, (8, 12, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1))


def dark() -> np.ndarray:
    return np.full((SIZE_WH[1], SIZE_WH[0], 3), 4, np.uint8)


def drive(seconds: int) -> List[np.ndarray]:
    """Ten frames a second, two of each street."""
    return [street(number // 5) for number in range(FPS * seconds)]


def write_drive(path: Path, frames: Iterable[np.ndarray]) -> Path:
    """The frames as a video, ten a second."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "crf": "8", "g": "10", "sc_threshold": "0"}
        )
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())
    return path
