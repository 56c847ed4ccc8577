"""A drive made to choose frames from, of ToyTown streets, with all that spoils recordings, in parts that have names.

``made_drive()`` gives the parts in order: two laps of the same streets, a robot that stands (alone, with a passer-by,
before a lit sign that flickers), blur of a turn and of a lens, a tunnel, too much light, a night, a bare wall.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from rtda_training.data.toytown import render_clip

SIZE_HW = (180, 320)
STREETS = (3, 4, 8, 12)  # whose lenses are about as sharp, as if one camera had filmed all
STANDING, PASSER_BY = 13, 17  # streets in which the robot stands
STREET_FRAMES = 10
LAP_FRAMES = len(STREETS) * STREET_FRAMES


@lru_cache(maxsize=None)
def lap() -> Tuple[np.ndarray, ...]:
    """The streets of a lap, one after the other, uint8 (180, 320, 3) BGR each."""
    return tuple(frame for street in STREETS for frame in _street(street, STREET_FRAMES))


@lru_cache(maxsize=None)
def _street(number: int, count: int) -> Tuple[np.ndarray, ...]:
    return tuple(frame for frame, _ in render_clip("target", number, count, SIZE_HW))


def again(frames: Sequence[np.ndarray], way_px: Tuple[int, int] = (5, 2)) -> List[np.ndarray]:
    """Frames seen from a little to the side, as the second lap sees what the first one saw."""
    import cv2

    shift = np.array(((1.0, 0.0, way_px[0]), (0.0, 1.0, way_px[1])))
    moved = [cv2.warpAffine(frame, shift, SIZE_HW[::-1], borderMode=cv2.BORDER_REFLECT) for frame in frames]
    return [noisy(frame, 1000 + number, 2.0) for number, frame in enumerate(moved)]


def noisy(frame: np.ndarray, seed: int, sigma: float = 5.0) -> np.ndarray:
    """As the same sensor sees the same again."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def standing(count: int = 60) -> List[np.ndarray]:
    """A robot that stands; nothing moves but the noise, and the light comes and goes a little."""
    return [noisy(_street(STANDING, 1)[0] * (1.0 + 0.03 * np.sin(number / 5)), number) for number in range(count)]


def passer_by(count: int = 60) -> List[np.ndarray]:
    """A robot that stands while somebody walks past, a fifth of the picture's height and more."""
    import cv2

    frames = []
    for number, frame in enumerate(noisy(_street(PASSER_BY, 1)[0], number) for number in range(count)):
        x = round(number / count * 1.2 * SIZE_HW[1]) - 30
        cv2.rectangle(frame, (x, 85), (x + 22, 130), (40, 60, 150), cv2.FILLED)
        cv2.rectangle(frame, (x + 3, 130), (x + 19, 170), (60, 50, 40), cv2.FILLED)
        cv2.circle(frame, (x + 11, 76), 9, (120, 150, 200), cv2.FILLED)
        frames.append(frame)
    return frames


def turned(frames: Sequence[np.ndarray], way_px: int = 15) -> List[np.ndarray]:
    """Frames blurred by a turn, along the rows alone, with the noise of the sensor that comes after it."""
    import cv2

    return [noisy(cv2.blur(frame, (way_px, 1)), number, 2.0) for number, frame in enumerate(frames)]


def defocused(frames: Sequence[np.ndarray], sigma_px: float = 2.5) -> List[np.ndarray]:
    """Frames through a lens out of focus."""
    import cv2

    return [noisy(cv2.GaussianBlur(frame, (0, 0), sigma_px), number, 2.0) for number, frame in enumerate(frames)]


def lit(frames: Sequence[np.ndarray], gain: float, sigma: float = 2.0) -> List[np.ndarray]:
    """Frames with so many times the light, and the sensor's noise."""
    return [noisy(frame * gain, number, sigma) for number, frame in enumerate(frames)]


def bare(count: int = 20) -> List[np.ndarray]:
    """A wall and a floor without texture, and one post that passes: sharp, with hardly an edge."""
    frames = []
    for number in range(count):
        frame = np.full((*SIZE_HW, 3), 150, np.uint8)
        frame[110 + 2 * (number % 3) :] = 105
        left = 20 + 14 * number
        frame[60:130, left : left + 5] = 60
        frames.append(noisy(frame, number, 1.0))
    return frames


def made_drive() -> Dict[str, List[np.ndarray]]:
    """All parts in their order, about 400 frames."""
    drive = lap()
    return {
        "first lap": [noisy(frame, number, 2.0) for number, frame in enumerate(drive)],
        "standing": standing(),
        "passer-by": passer_by(),
        "turn": turned(drive[:20]),
        "defocus": defocused(drive[20:40]),
        "tunnel": lit(drive[:20], 0.05),
        "too bright": lit([frame.astype(np.float32) + 90 for frame in drive[20:40]], 1.8),
        "night": lit(drive[30:], 0.25),
        "bare": bare(),
        "second lap": again(drive),
    }


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int = 10, **options: str) -> Path:
    """Write frames as H.264, as a robot's recorder would."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps), options={"preset": "veryfast", "crf": "23", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        file.mux(stream.encode())
    return path
