"""Which picture of a set is read at which place of an endless stream."""

from __future__ import annotations

import dataclasses

import numpy as np

__all__ = ["Draw", "PictureOrder"]


@dataclasses.dataclass(frozen=True)
class Draw:
    """One picture to be read.

    Attributes:
        index: Position in the set.
        wanted: Class that the crop should hold, or -1.
        least_pixels: How many pixels of it the crop should hold at least.
    """

    index: int
    wanted: int = -1
    least_pixels: int = 0


class PictureOrder:
    """Which picture stands at a position of the endless stream: a pure, picklable function of the position.

    This one: every picture once an epoch, in an order drawn per epoch.
    """

    def __init__(self, count: int, seed: tuple[int, ...]) -> None:
        self._count = count
        self._seed = seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def draw(self, position: int) -> Draw:
        """The picture at ``position``."""
        epoch, place = divmod(position, self._count)
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng((*self._seed, 0, epoch))
            self._epoch = (epoch, rng.permutation(self._count))
        return Draw(int(self._epoch[1][place]))
