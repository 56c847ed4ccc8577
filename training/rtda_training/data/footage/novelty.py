"""Whether a frame shows something that the frames just before did not: standing robots yield one frame, not a thousand.

Two frames are compared in 64x36 cells of grey, so small that the noise of sensor and codec has been averaged away.
What counts is the share of cells with texture that changed: of a robot that moves nearly all do, of one that stands
those that a passer-by covers. A mean difference over the frame cannot tell the two apart: docs/results/footage.md.
"""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from rtda_deploy.pictures.dhash import hamming
from rtda_training.data.footage.measures import Measures

__all__ = ["Look", "Novelty", "Seen", "moved_share"]

_CHANGED_STD = 0.08  # of a frame's standard deviation of grey; a cell that differs by more has changed,
_CHANGED_LEVELS = (1.5, 4.0)  # but by no less and no more grey levels: noise of a night, contrast of a day
_TEXTURE = 2.0  # times that: where neighbouring cells differ by so much there is something to see move
_LEAST_TEXTURE = 0.05  # of all cells; with less texture than this, some that changed do not make a frame new
_SHARPER = 1.4  # times: a near-duplicate that is so much sharper takes the other's place


class Look(NamedTuple):
    """What is kept of a frame, to compare others with."""

    place: int
    sharpness: Tuple[float, float]
    dhash: int
    cells: np.ndarray  # float32 (h, w), its glance
    texture: np.ndarray  # float32 (h, w), how much neighbouring cells differ
    contrast: float  # standard deviation of all cells

    @classmethod
    def of(cls, place: int, found: Measures) -> Look:
        """What is kept of a frame that measures this."""
        cells = found.glance.astype(np.float32)
        down, across = np.gradient(cells)
        return cls(place, found.sharpness, found.dhash, cells, np.abs(down) + np.abs(across), float(cells.std()))


class Novelty(NamedTuple):
    """How a frame compares with those before.

    Attributes:
        is_new: Whether it may be chosen.
        same: Places of those that show the same; where it is new, it takes their place, being sharper.
    """

    is_new: bool
    same: List[int]


class Seen:
    """The frames that those to come are compared with.

    Args:
        moved: Share of what has texture that has to change for a frame to be new.
        window: Frames that it is compared with.
        hash_bits: Frames whose dHash differs by no more are near-duplicates, ...
        hash_window: ... if they are not more than so many frames apart ...
        hash_moved: ... and less than this share changed.
    """

    def __init__(self, *, moved: float, window: int, hash_bits: int, hash_window: int, hash_moved: float) -> None:
        self._moved, self._window = moved, window
        self._hash_bits, self._hash_window, self._hash_moved = hash_bits, hash_window, hash_moved
        self._looks: List[Look] = []

    def add(self, place: int, found: Measures) -> Novelty:
        """Compare a frame, and remember it if it is new."""
        look = Look.of(place, found)
        same = self._same(look)
        places = [other.place for other in same]
        if any(not _is_sharper(look, other) for other in same):
            return Novelty(False, places)
        kept = [other for other in self._looks if other.place not in places]
        self._looks = [*kept, look][-self._hash_window :]
        return Novelty(True, places)

    def _same(self, look: Look) -> List[Look]:
        """Those before that show the same."""
        hashed = [other for other in self._looks if hamming(other.dhash, look.dhash) <= self._hash_bits]
        recent = self._looks[-self._window :]
        same = [other for other, moved in zip(recent, moved_share(recent, look)) if moved < self._moved]
        return same + [other for other, moved in zip(hashed, moved_share(hashed, look)) if moved < self._hash_moved]


def moved_share(before: Sequence[Look], after: Look) -> np.ndarray:
    """How much of what has texture changed, whatever became brighter or darker as a whole: float (N,), 0 to 1."""
    if not before:
        return np.zeros(0)
    difference = after.cells - np.stack([look.cells for look in before])
    lighter = np.median(difference[:, ::2, ::2], axis=(1, 2), keepdims=True)
    contrast = np.minimum([look.contrast for look in before], after.contrast)
    changed_by = np.clip(_CHANGED_STD * contrast, *_CHANGED_LEVELS).astype(np.float32)[:, None, None]
    texture = np.maximum(after.texture, np.stack([look.texture for look in before])) > _TEXTURE * changed_by
    changed = texture & (np.abs(difference - lighter) > changed_by)
    least = _LEAST_TEXTURE * after.cells.size
    return np.asarray(changed.sum(axis=(1, 2)) / np.maximum(texture.sum(axis=(1, 2)), least))


def _is_sharper(own: Look, other: Look) -> bool:
    ratios = [mine / its for mine, its in zip(own.sharpness, other.sharpness) if its]
    return any(ratio > _SHARPER for ratio in ratios) and all(ratio > 1 / _SHARPER for ratio in ratios)
