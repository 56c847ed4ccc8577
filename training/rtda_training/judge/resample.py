"""Other footage that could as well have been recorded: the frames drawn again, in blocks of neighbours."""

from __future__ import annotations

import numpy as np

__all__ = ["block_weights", "one_of_each"]

_BLOCKS = 20  # that the footage is cut into; neighbours in a recording are alike, and count together


def one_of_each(frames: int) -> np.ndarray:
    """float64 (1, N): every frame once."""
    return np.full((1, frames), 1.0 / frames)


def block_weights(frames: int, draws: int, seed: int = 0) -> np.ndarray:
    """float64 (draws, N): how often each frame is in a draw of contiguous blocks, rows of sum 1.

    Blocks may start anywhere and go on at the beginning. The same for the same arguments.

    Source: Politis and Romano, circular block bootstrap (1992).
    """
    length = max(1, round(frames / _BLOCKS))
    blocks = -(-frames // length)
    starts = np.random.default_rng(seed).integers(frames, size=(draws, blocks))
    places = (starts[..., None] + np.arange(length)) % frames
    drawn = places.reshape(draws, -1)[:, :frames]
    counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=frames)
    return np.asarray(counts / frames)
