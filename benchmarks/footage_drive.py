"""A drive of 720p H.264 made on the spot, of ToyTown's streets, with all that spoils recordings in it."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple

import av
import cv2
import numpy as np

from rtda_training.data.toytown import render_clip

__all__ = ["FPS", "STREET_FRAMES", "Part", "parts_of", "write_drive"]

FPS = 25
_SIZE_WH, _ROOM_PX = (1280, 720), 32  # streets are rendered so much larger: the camera shakes
_STREETS = (3, 4, 8, 11, 12, 13, 17, 18, 19, 25)  # whose lenses are about as sharp, as if one camera had filmed all
_STEPS, _REPEATS = 12, 16  # pictures of a street, 0.42 m apart, and frames of each: 2.4 km/h
STREET_FRAMES = len(_STREETS) * _STEPS
_NOISE = 3.0  # grey levels of the sensor


class Part(NamedTuple):
    """A stretch of the drive: what happens, and how many frames of 10,000 it takes."""

    name: str
    frames: int
    draw: Callable[[int], np.ndarray]  # the part's frame of this number, uint8 (752, 1312, 3) BGR at most


def parts_of(frames: int, streets: List[np.ndarray]) -> List[Part]:
    """The parts of a drive of so many frames."""
    lap = len(streets) * _REPEATS
    mirrored = [street[:, ::-1] for street in streets]

    def driven(town: List[np.ndarray], start: int = 0) -> Callable[[int], np.ndarray]:
        return lambda number: town[(start + number // _REPEATS) % len(town)]

    def stood(number: int) -> np.ndarray:
        return streets[-1]

    def passed(number: int) -> np.ndarray:
        frame = mirrored[5].copy()
        x = int(number * 3.5) % 1700 - 200
        cv2.rectangle(frame, (x, 330), (x + 90, 520), (40, 60, 150), cv2.FILLED)
        cv2.rectangle(frame, (x + 10, 520), (x + 80, 690), (60, 50, 40), cv2.FILLED)
        cv2.circle(frame, (x + 45, 295), 38, (120, 150, 200), cv2.FILLED)
        return frame

    half = len(streets) // 2
    parts = [
        Part("a lap", lap, driven(streets)),
        Part("standing for a minute", 60 * FPS, stood),
        Part("standing, people walk by", 20 * FPS, passed),
        Part("turning: blurred by motion", 250, lambda number: cv2.blur(driven(streets, 24)(number), (41, 1))),
        Part("out of focus", 250, lambda number: cv2.GaussianBlur(driven(streets, 60)(number), (0, 0), 5.0)),
        Part("a dark tunnel", 500, lambda number: cv2.convertScaleAbs(driven(streets)(number), alpha=0.05)),
        Part("against the sun", 250, lambda number: cv2.convertScaleAbs(driven(streets)(number), alpha=1.8, beta=160)),
        Part("a night", 750, lambda number: cv2.convertScaleAbs(driven(mirrored, half)(number), alpha=0.25)),
        Part("the same lap again", lap, driven(streets)),
    ]
    rest = 10_000 - sum(part.frames for part in parts)
    parts.append(Part("another town", rest, driven(mirrored)))
    return [part._replace(frames=part.frames * frames // 10_000) for part in parts]


def write_drive(path: Path, frames: int) -> List[Part]:
    """Render and encode it: H.264, a key frame every two seconds, as cameras of robots do.

    Returns:
        Its parts in order.
    """
    height, width = _SIZE_WH[1] + _ROOM_PX, _SIZE_WH[0] + _ROOM_PX
    streets = [frame for street in _STREETS for frame, _ in render_clip("target", street, _STEPS, (height, width))]
    parts = parts_of(frames, streets)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={"preset": "superfast", "crf": "23", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = *_SIZE_WH, "yuv420p"
        for frame in _filmed(parts):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        file.mux(stream.encode())
    return parts


def _filmed(parts: List[Part]) -> Iterator[np.ndarray]:
    """The frames of all parts, seen by a sensor with noise and, while it moves, from a camera that shakes a little."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, _NOISE, (2 * _SIZE_WH[1], _SIZE_WH[0], 3)).round()
    more, less = noise.clip(0, 255).astype(np.uint8), (-noise).clip(0, 255).astype(np.uint8)
    for part in parts:
        moves = not part.name.startswith("standing")
        for number in range(part.frames):
            x = round(_ROOM_PX / 2 * (1 + math.sin(number / 9))) if moves else 9
            y = round(_ROOM_PX / 2 * (1 + math.cos(number / 13))) if moves else 9
            frame = part.draw(number)[y : y + _SIZE_WH[1], x : x + _SIZE_WH[0]]
            start = int(rng.integers(_SIZE_WH[1]))
            rows = slice(start, start + _SIZE_WH[1])
            yield cv2.subtract(cv2.add(frame, more[rows]), less[rows])
