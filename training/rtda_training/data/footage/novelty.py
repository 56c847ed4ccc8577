"""Whether a frame shows something that the frames just before did not: standing robots yield one frame, not a thousand.

Two frames are compared in 64x36 cells of grey, so small that the noise of sensor and codec has been averaged away.
What counts is the share of cells with texture that changed: of a robot that moves nearly all do, of one that stands
those that a passer-by covers. A mean difference, the usual measure, cannot tell the two apart where the passer-by is
near or the road is bare.
"""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

import numpy as np

from rtda_training.data.footage.measures import Measures

__all__ = ["Seen", "moved_share"]

_CHANGED_STD = 0.08  # of a frame's standard deviation of grey; a cell that differs by more has changed,
_CHANGED_LEVELS = (1.5, 4.0)  # but by no less and no more grey levels: noise of a night, contrast of a day
_TEXTURE = 2.0  # times that: where neighbouring cells differ by so much there is something to see move
_LEAST_TEXTURE = 0.05  # of all cells; with less texture than this, some that changed do not make a frame new
_SHARPER = 1.4  # times: a near-duplicate that is so much sharper takes the other's place


class _Reference(NamedTuple):
    place: int
    sharpness: Tuple[float, float]


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
        self._references: List[_Reference] = []
        self._glances = np.zeros((0, 0, 0), np.float32)
        self._hashes = np.zeros((0, 8), np.uint8)

    def add(self, place: int, found: Measures) -> Tuple[bool, List[int]]:
        """Compare a frame, and remember it if it is new.

        Returns:
            Whether it is new, and the places of frames before that it takes the place of, being the same but sharper.
        """
        glance = found.glance.astype(np.float32)[None]
        hashed = np.frombuffer(found.dhash.to_bytes(8, "big"), np.uint8)[None]
        same = self._same(glance, hashed) if self._references else np.zeros(0, int)
        if any(not _is_sharper(found.sharpness, self._references[number].sharpness) for number in same):
            return False, []
        replaced = [self._references[number].place for number in same]
        rest = np.setdiff1d(np.arange(len(self._references)), same)[1 - self._hash_window :]
        self._references = [*(self._references[number] for number in rest), _Reference(place, found.sharpness)]
        first = not len(self._glances)
        self._glances = glance if first else np.concatenate([self._glances[rest], glance])
        self._hashes = hashed if first else np.concatenate([self._hashes[rest], hashed])
        return True, replaced

    def _same(self, glance: np.ndarray, hashed: np.ndarray) -> np.ndarray:
        """Numbers of the references that show the same."""
        count = len(self._references)
        differing = np.unpackbits(self._hashes ^ hashed, axis=1).sum(axis=1)
        near = np.flatnonzero((differing <= self._hash_bits) | (np.arange(count) >= count - self._window))
        moved = moved_share(self._glances[near], glance)
        alike = (moved < self._hash_moved) & (differing[near] <= self._hash_bits)
        return np.asarray(near[alike | ((moved < self._moved) & (near >= count - self._window))])


def moved_share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How much of what has texture changed, whatever became brighter or darker as a whole.

    Args:
        before: float32 (N, h, w), glances.
        after: float32 (1, h, w), the glance they are compared with.

    Returns:
        float (N,), 0 to 1.
    """
    difference = after - before
    difference = np.abs(difference - np.median(difference, axis=(1, 2), keepdims=True))
    contrast = np.minimum(before.std(axis=(1, 2), keepdims=True), after.std(axis=(1, 2), keepdims=True))
    changed_by = np.clip(_CHANGED_STD * contrast, *_CHANGED_LEVELS)
    texture = np.maximum(_texture(before), _texture(after)) > _TEXTURE * changed_by
    changed = (texture & (difference > changed_by)).sum(axis=(1, 2))
    return np.asarray(changed / np.maximum(texture.sum(axis=(1, 2)), _LEAST_TEXTURE * difference[0].size))


def _texture(glances: np.ndarray) -> np.ndarray:
    """How much neighbouring cells differ, to the sides and up and down."""
    return np.asarray(np.abs(np.gradient(glances, axis=1)) + np.abs(np.gradient(glances, axis=2)))


def _is_sharper(own: Tuple[float, float], other: Tuple[float, float]) -> bool:
    ratios = [mine / its for mine, its in zip(own, other) if its]
    return any(ratio > _SHARPER for ratio in ratios) and all(ratio > 1 / _SHARPER for ratio in ratios)
