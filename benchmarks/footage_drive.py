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

__all__ = ["FPS", "Part", "parts_of", "write_drive"]

FPS = 25
_SIZE_WH, _ROOM_PX = (1280, 720), 32  # streets are rendered so much larger: the camera shakes
_STREETS = (3, 4, 8, 11, 12, 13, 17, 18, 19, 25)  # whose lenses are about as sharp, as if one camera had filmed all
_STEPS = 12  # pictures of a street, 0.42 m apart; at 10,000 frames each is seen 16 times, which is 2.4 km/h
_NOISE = 3.0  # grey levels of the sensor


class Part(NamedTuple):
    """A stretch of the drive: what happens, its share of all frames in 1/10,000, and how it is drawn."""

    name: str
    share: int
    draw: Callable[[float], np.ndarray]  # by how much of the part is over, 0 to 1: uint8 (752, 1312, 3) BGR


def parts_of(town: List[np.ndarray]) -> List[Part]:
    """The parts of a drive through a town, pictures of its streets in order."""
    mirrored = [frame[:, ::-1] for frame in town]

    def driven(frames: List[np.ndarray], first: float = 0.0, last: float = 1.0) -> Callable[[float], np.ndarray]:
        return lambda over: frames[int((first + over * (last - first)) * len(frames))]

    def changed(change: Callable[[np.ndarray], np.ndarray], first: float, last: float) -> Callable[[float], np.ndarray]:
        way = driven(town, first, last)
        return lambda over: change(way(over))

    return [
        Part("a lap", 1920, driven(town)),
        Part("standing for a minute", 1500, lambda over: town[-1]),
        Part("standing, people walk by", 500, lambda over: _passed(mirrored[len(mirrored) // 3], over)),
        Part("turning: blurred by motion", 250, changed(lambda frame: cv2.blur(frame, (41, 1)), 0.2, 0.33)),
        Part("out of focus", 250, changed(lambda frame: cv2.GaussianBlur(frame, (0, 0), 5.0), 0.5, 0.63)),
        Part("a dark tunnel", 500, changed(lambda frame: cv2.convertScaleAbs(frame, alpha=0.05), 0.0, 0.26)),
        Part("against the sun", 250, changed(lambda frame: cv2.convertScaleAbs(frame, alpha=1.8, beta=160), 0.3, 0.43)),
        Part("a night", 750, changed(lambda frame: cv2.convertScaleAbs(frame, alpha=0.25), 0.4, 0.8)),
        Part("the same lap again", 1920, driven(town)),
        Part("another town", 2160, driven(mirrored)),
    ]


def _passed(frame: np.ndarray, over: float) -> np.ndarray:
    """Somebody walks from left to right, and again."""
    frame = frame.copy()
    x = int(2 * over % 1.0 * 1500) - 120
    cv2.rectangle(frame, (x, 330), (x + 90, 520), (40, 60, 150), cv2.FILLED)
    cv2.rectangle(frame, (x + 10, 520), (x + 80, 690), (60, 50, 40), cv2.FILLED)
    cv2.circle(frame, (x + 45, 295), 38, (120, 150, 200), cv2.FILLED)
    return frame


def write_drive(path: Path, frames: int, steps: int = _STEPS) -> None:
    """Render and encode it: H.264, a key frame every two seconds, as cameras of robots do.

    Args:
        path: The mp4 file.
        frames: How many.
        steps: Pictures that are rendered of each street.
    """
    size_hw = (_SIZE_WH[1] + _ROOM_PX, _SIZE_WH[0] + _ROOM_PX)
    town = [frame for street in _STREETS for frame, _ in render_clip("target", street, steps, size_hw)]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={"preset": "superfast", "crf": "23", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = *_SIZE_WH, "yuv420p"
        for frame in _filmed(parts_of(town), frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        file.mux(stream.encode())


def _filmed(parts: List[Part], frames: int) -> Iterator[np.ndarray]:
    """The frames of all parts, seen by a sensor with noise and, while it moves, from a camera that shakes a little."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, _NOISE, (2 * _SIZE_WH[1], _SIZE_WH[0], 3)).round()
    more, less = noise.clip(0, 255).astype(np.uint8), (-noise).clip(0, 255).astype(np.uint8)
    for part in parts:
        count, moves = frames * part.share // 10_000, not part.name.startswith("standing")
        for number in range(count):
            x = round(_ROOM_PX / 2 * (1 + math.sin(number / 9))) if moves else 9
            y = round(_ROOM_PX / 2 * (1 + math.cos(number / 13))) if moves else 9
            frame = part.draw(number / count)[y : y + _SIZE_WH[1], x : x + _SIZE_WH[0]]
            start = int(rng.integers(_SIZE_WH[1]))
            rows = slice(start, start + _SIZE_WH[1])
            yield cv2.subtract(cv2.add(frame, more[rows]), less[rows])
