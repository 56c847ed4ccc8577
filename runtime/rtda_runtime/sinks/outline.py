"""Lines around the regions of an overlay, where a class has nearly the colour of what it covers or borders on."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np

from rtda_runtime._opencv import opencv
from rtda_runtime.threads.buffers import BufferPool

__all__ = ["Outline"]

_LEAST = 35.0  # distance in CIE Lab (black to white is 100): less is hard to tell apart in a busy picture
_ON, _OFF = 0.5, 0.35  # share of a class's border that is hard to see: above, it gets a line; below, it loses it
_EVERY = 16  # rows and columns in whose borders that is judged
_FEW = 16  # border pixels of a class below which nothing is decided about it
_NO_CLASS = 255
_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB > 0.04045, ((_SRGB + 0.055) / 1.055) ** 2.4, _SRGB / 12.92).astype(np.float32)  # its light
_XYZ_OF_BGR = np.array(  # of D65's white, which becomes (1, 1, 1)
    [[0.1899, 0.0722, 0.8729], [0.3762, 0.7152, 0.1095], [0.4339, 0.2126, 0.0178]], np.float32
)
_LAB_OF_CURVED = np.array([[0, 500, 0], [116, -500, 200], [0, 0, -200]], np.float32)


class Outline:
    """Draws a thin line, white beside black, where the class changes. One thread at a time.

    Args:
        num_classes: Larger values in a mask are no class.
        always: True: around every region. False: around regions of classes that are hard to see because their colour is
            close to that of the frame below them or of the region next to them. A class keeps its line until it is
            clearly no longer needed, so that a film does not flicker; a change of size resets this.
    """

    def __init__(self, num_classes: int, *, always: bool) -> None:
        self._num_classes = num_classes
        self._always = always
        self._size_hw: Tuple[int, ...] = ()
        self._lined = np.full(256, always)  # by class index
        self._scratch = BufferPool()

    def draw(self, picture: np.ndarray, frame: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> None:
        """Draw onto an overlay, in place.

        Args:
            picture: uint8 (H, W, 3) BGR, the overlay.
            frame: uint8 (H, W, 3) BGR, what is below the mask.
            mask: uint8 (H, W) class index.
            colours: uint8 (H, W, 3) BGR, the mask in its colours; overwritten.
        """
        cv2: Any = opencv("to draw overlays")
        if min(mask.shape) < 2:
            return
        if not self._always:
            if mask.shape != self._size_hw:
                self._size_hw = mask.shape
                self._lined[:] = False
            self._judge(picture, frame, mask, colours)
            if not self._lined.any():
                return
        borders = self._borders(mask)
        beside = cv2.dilate(borders, np.ones((2, 2), np.uint8), dst=self._scratch.take(mask.shape), anchor=(1, 1))
        for places, shade in ((beside, 0), (borders, 255)):
            colours.fill(shade)
            cv2.copyTo(colours, places, picture)

    def _borders(self, mask: np.ndarray) -> np.ndarray:
        """uint8 (H, W), 255 where the right or the lower neighbour is of another class, and one of the two is lined."""
        cv2: Any = opencv("to draw overlays")
        kept = np.where(self._lined, np.arange(256), _NO_CLASS).astype(np.uint8)  # the others as one class
        regions = mask if self._always else cv2.LUT(mask, kept, self._scratch.take(mask.shape))
        found, down = self._scratch.take(mask.shape), self._scratch.take(mask.shape)
        found[:, -1] = down[-1] = 0
        cv2.compare(regions[:, 1:], regions[:, :-1], cv2.CMP_NE, dst=found[:, :-1])
        cv2.compare(regions[1:], regions[:-1], cv2.CMP_NE, dst=down[:-1])
        return np.asarray(cv2.bitwise_or(found, down, dst=found))

    def _judge(self, picture: np.ndarray, frame: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> None:
        """Decide which classes get a line, from the borders in some rows and columns."""
        near, far = _sampled_borders(mask)
        alike = _alike(picture[near], picture[far])
        seen, hard = np.zeros(256, np.int64), np.zeros(256, np.int64)
        for side in (near, far):
            classes, lost = mask[side], alike | _alike(colours[side], frame[side])
            seen += np.bincount(classes, minlength=256)
            hard += np.bincount(classes[lost], minlength=256)
        seen[self._num_classes :] = 0  # there the frame itself is seen
        self._lined[(seen >= _FEW) & (hard > _ON * seen)] = True
        self._lined[(seen >= _FEW) & (hard < _OFF * seen)] = False


_Places = Tuple[np.ndarray, np.ndarray]  # rows, columns


def _sampled_borders(mask: np.ndarray) -> Tuple[_Places, _Places]:
    """Neighbours of different classes: the left or upper ones, and the right or lower ones."""
    height, width = mask.shape
    row, left = np.divmod(np.flatnonzero(mask[::_EVERY, 1:] != mask[::_EVERY, :-1]), max(1, width - 1))
    column, upper = np.divmod(np.flatnonzero(mask[1:, ::_EVERY].T != mask[:-1, ::_EVERY].T), max(1, height - 1))
    rows, columns = np.concatenate([row * _EVERY, upper]), np.concatenate([left, column * _EVERY])
    across = np.arange(rows.size) < row.size
    return (rows, columns), (rows + ~across, columns + across)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which of the colours, uint8 (N, 3) BGR, hardly differ: in CIE Lab, where distance is what an eye sees."""
    differ = _lab(one) - _lab(other)
    near: np.ndarray = np.einsum("ij,ij->i", differ, differ) < _LEAST * _LEAST
    return near


def _lab(colours: np.ndarray) -> np.ndarray:
    """float32 (N, 3) of uint8 (N, 3) BGR; OpenCV's own needs 50 ms for its tables when it is first asked."""
    xyz = _LINEAR[colours] @ _XYZ_OF_BGR
    curved = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.asarray(curved @ _LAB_OF_CURVED)  # without the constant -16 of L: only differences count
