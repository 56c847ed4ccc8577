"""Drives without pictures: signals of a network as a random process whose neighbours are alike."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from rtda_deploy.familiar import Familiar
from rtda_training.judge.blocks import familiar_of

WIDTHS = (8, 16, 4, 1)


class Drive:
    """A street: what a network sees of it wanders around a mean, ``alike`` from block to block."""

    def __init__(self, seed: int, alike: float = 0.5, tails: Optional[int] = None) -> None:
        self._random = np.random.default_rng(seed)
        self._alike, self._tails = alike, tails
        self._offsets = np.random.default_rng(0).normal(size=sum(WIDTHS))  # the same world for all drives

    def blocks(self, count: int, shift: float = 0.0) -> np.ndarray:
        """float64 (count, D); ``shift``: of the features, in their own spreads."""
        size = (count, sum(WIDTHS))
        noise = self._random.normal(size=size) if self._tails is None else self._random.standard_t(self._tails, size)
        wander = np.empty(size)
        now = noise[0]
        for place in range(count):
            now = self._alike * now + np.sqrt(1.0 - self._alike**2) * noise[place]
            wander[place] = now
        looks, features, logits, sure = np.split(self._offsets + wander, np.cumsum(WIDTHS[:3]), axis=1)
        shares = np.exp(0.3 * logits)
        shares /= shares.sum(axis=1, keepdims=True)
        return np.concatenate([looks, features + shift, shares, 0.8 + 0.03 * np.tanh(sure - 1.0)], axis=1)

    def familiar(self, blocks: int, data: str = "drive") -> Familiar:
        """Blocks of a card that was calibrated on this drive."""
        found = familiar_of([np.repeat(self.blocks(blocks), 3, axis=0)], WIDTHS, data=data, robot=True)
        assert found is not None
        return found


def frames(block: np.ndarray) -> Tuple[np.ndarray, ...]:
    """The frames of a block, one a second."""
    return (block, block, block)
