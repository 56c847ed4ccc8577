"""A few pictures beside the masks that a network gives for them, for logs and reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.optional import require
from rtda_training.data.config import InputConfig
from rtda_training.labels import IGNORE_INDEX
from rtda_training.loop.validate import masks_of
from rtda_training.models import SegmentationNetwork
from rtda_training.readers import UnlabelledSet

__all__ = ["colours", "picture_grid", "spread_places", "usable_frame"]

_TRIES = 10
_GRID_WIDTH = 320  # pixels of one tile


def spread_places(count: int, total: int) -> list[int]:
    """At most ``count`` different positions, spread evenly over ``total`` and off its ends."""
    count = min(count, total)
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


def usable_frame(pictures: UnlabelledSet, place: int) -> np.ndarray:
    """The frame at ``place``, or, where it cannot be read, the next that can: uint8 (H, W, 3) BGR.

    A training goes on despite a few faulty pictures (``max_corrupt``); one of them must not end it here.

    Raises:
        DataError: Of the first one, where ten in a row cannot be read. FileAccessError likewise.
    """
    first = None
    for step in range(min(_TRIES, len(pictures))):
        try:
            return pictures.frame((place + step) % len(pictures))
        except (DataError, FileAccessError) as err:
            first = first or err
    raise first or DataError("there is no picture", hint="rtda-deploy data check DATA says what the set holds")


def colours(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """A mask in the palette's colours: uint8 (H, W, 3) BGR; black where not labelled."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: min(len(palette), IGNORE_INDEX)] = np.asarray(palette, dtype=np.uint8)[:IGNORE_INDEX, ::-1]
    return np.asarray(table[mask])


def picture_grid(
    network: SegmentationNetwork,
    pictures: UnlabelledSet,
    size_hw: tuple[int, int],
    contract: InputConfig,
    palette: Sequence[Sequence[int]],
    count: int = 4,
) -> np.ndarray:
    """The same few pictures whenever it is called, each beside its mask: uint8 (H, W, 3) RGB."""
    cv2 = require("cv2", extra="training", purpose="to draw pictures")
    frames = [usable_frame(pictures, place) for place in spread_places(count, len(pictures))]
    height = max(1, round(_GRID_WIDTH * size_hw[0] / size_hw[1]))
    rows = []
    for frame, mask in zip(frames, masks_of(network, frames, size_hw, contract), strict=True):
        left = cv2.resize(frame, (_GRID_WIDTH, height), interpolation=cv2.INTER_AREA)
        right = cv2.resize(colours(mask, palette), (_GRID_WIDTH, height), interpolation=cv2.INTER_NEAREST)
        rows.append(np.hstack([left, right]))
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])
