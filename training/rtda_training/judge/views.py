"""The same frame seen otherwise: a network that is right says the same of it.

Source: Lee et al., AETTA (CVPR 2024), which compares dropout passes; deployed networks have no dropout, views are
what stands in for it.
"""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple

import numpy as np

__all__ = ["VIEWS", "View"]

_GAMMA = (0.8, 1.0, 1.25)  # of blue, green and red: a warmer light
_CONTRAST = 0.8


class View(NamedTuple):
    """A change of a frame and the way back for what a network says of it.

    Attributes:
        change: uint8 (H, W, 3) to another such array.
        back: (C, h, w) of the changed frame, as it lies on the original.
    """

    change: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _tables() -> np.ndarray:
    """uint8 (256, 3): what each value of blue, green and red becomes."""
    share = np.arange(256)[:, None] / 255.0
    bent = share ** (1.0 / np.asarray(_GAMMA))
    return np.asarray(np.rint(255.0 * (0.5 + _CONTRAST * (bent - 0.5))), dtype=np.uint8)


_TABLES = _tables()


def _flipped(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, ::-1])


def _coloured(frame: np.ndarray) -> np.ndarray:
    return np.stack([_TABLES[:, channel][frame[..., channel]] for channel in range(3)], axis=2)


VIEWS: Dict[str, View] = {
    "flip": View(_flipped, lambda maps: maps[:, :, ::-1]),
    "colour": View(_coloured, lambda maps: maps),
}
