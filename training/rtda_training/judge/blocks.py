"""Blocks of the calibration card from a network's signals on footage: means of neighbouring frames, packed.

NumPy only.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import DataError
from rtda_deploy.familiar import MOST_BLOCKS, SAMPLE_S, SAMPLES, Familiar

__all__ = ["LEAST_FRAMES", "familiar_of"]

_LEAST_BLOCKS = 10
LEAST_FRAMES = SAMPLES * _LEAST_BLOCKS  # of footage that blocks are made of
_RUN = 30  # blocks in a row that are kept of long footage


def familiar_of(
    recordings: Sequence[np.ndarray],
    widths: Tuple[int, ...],
    *,
    data: str,
    robot: bool,
    frames_per_block: int = SAMPLES,
) -> Optional[Familiar]:
    """Pack footage into blocks; of more than ``MOST_BLOCKS`` runs of 30 are kept, spread over it.

    Args:
        recordings: float (N, D) signals of the frames of each recording, ``SAMPLE_S`` apart.
        widths: How many numbers each of ``SIGNALS`` has; D in all.
        data: Address of the footage.
        robot: Whether it is the robot's own.
        frames_per_block: 1 where the frames are no neighbours: then each is taken to be a block.

    Returns:
        The blocks; None where they are fewer than ten.

    Raises:
        DataError: If a signal is NaN or infinite.
    """
    each = frames_per_block
    whole = [frames[: len(frames) // each * each] for frames in recordings]
    found = [frames.reshape(-1, each, frames.shape[1]).mean(axis=1) for frames in whole if len(frames)]
    if sum(map(len, found)) < _LEAST_BLOCKS:
        return None
    kept = _spread(found)
    blocks = np.concatenate(kept).astype(np.float64)
    if not np.isfinite(blocks).all():
        raise DataError(
            f"the network's signals on {data} are NaN or infinite", hint="its training diverged; take an earlier one"
        )
    low, high = blocks.min(axis=0), blocks.max(axis=0)
    packed = np.rint((blocks - low) / np.maximum(high - low, 1e-30) * 255.0).astype(np.uint8)
    return Familiar(
        data=data,
        robot=robot,
        sample_s=SAMPLE_S,
        samples=SAMPLES,
        widths=widths,
        stretches=tuple(map(len, kept)),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        packed=packed.tobytes(),
    )


def _spread(recordings: Sequence[np.ndarray]) -> List[np.ndarray]:
    """Blocks by stretches without a gap, ``MOST_BLOCKS`` at most."""
    if sum(map(len, recordings)) <= MOST_BLOCKS:
        return list(recordings)
    runs = [blocks[start : start + _RUN] for blocks in recordings for start in range(0, len(blocks), _RUN)]
    places = np.linspace(0, len(runs) - 1, min(len(runs), MOST_BLOCKS // _RUN)).round().astype(int)
    return [runs[place] for place in np.unique(places)]
