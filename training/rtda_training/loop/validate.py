"""Masks and scores of a network in torch, and a few pictures beside their masks for logs and reports.

``rtda-deploy eval`` scores files with the runtime's own code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.optional import require
from rtda_training.data.batches import normalise
from rtda_training.data.config import InputConfig
from rtda_training.labels import IGNORE_INDEX
from rtda_training.metrics import ConfusionMatrix, Scores
from rtda_training.models import SegmentationNetwork
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = [
    "colours",
    "evaluating",
    "mask_of",
    "masks_of",
    "picture_grid",
    "score",
    "spread_places",
    "usable_frame",
    "validate",
]


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients while the block runs; afterwards every module has the mode it had."""
    modes = [(module, module.training) for module in network.modules()]  # fixed batch norms are not as the rest
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def mask_of(
    network: SegmentationNetwork,
    frame: np.ndarray,
    size_hw: tuple[int, int],
    contract: InputConfig,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """The mask of a frame by a network in evaluation mode: logits upsampled bilinearly (``align_corners=False``).

    Args:
        network: On any device.
        frame: uint8 (H, W, 3) BGR of any size; stretched to the network's.
        size_hw: Of the network's input.
        contract: How pixels become that input.
        shape: Height and width of the mask; None: the frame's.

    Returns:
        uint8 of ``shape``.
    """
    device = next(network.parameters()).device
    picture = normalise(torch.from_numpy(np.ascontiguousarray(frame)).to(device)[None], contract)
    if tuple(picture.shape[2:]) != size_hw:
        picture = functional.interpolate(picture, size=size_hw, mode="bilinear", align_corners=False)
    logits = network(picture).coarse.float()
    full = functional.interpolate(logits, size=shape or frame.shape[:2], mode="bilinear", align_corners=False)
    return np.asarray(full.argmax(dim=1)[0].to(torch.uint8).cpu().numpy())


def masks_of(
    network: SegmentationNetwork, frames: Sequence[np.ndarray], size_hw: tuple[int, int], contract: InputConfig
) -> list[np.ndarray]:
    """Masks of several frames, as :func:`mask_of`; the network may be in any mode and is left as it was."""
    with evaluating(network):
        return [mask_of(network, frame, size_hw, contract) for frame in frames]


def score(
    mask: Callable[[np.ndarray, tuple[int, int]], np.ndarray],
    data: LabelledSet,
    *,
    confusion: ConfusionMatrix,
    max_pictures: int = 0,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Scores | None:
    """IoU and pixel accuracy at each label's own size.

    Args:
        mask: Gives the mask, uint8, of a frame at a height and width.
        data: Pictures and labels.
        confusion: Counted into.
        max_pictures: Spread evenly over the set; 0: all.
        progress: Called with (done, total).
        stop: Looked at before each picture; where it says so, the rest is given up.

    Returns:
        The scores; None where it was given up.
    """
    count = min(len(data), max_pictures or len(data))
    for done, index in enumerate(np.linspace(0, len(data) - 1, count).round().astype(int)):
        if stop is not None and stop():
            return None
        label = data.label(int(index))
        confusion.add(label, mask(data.frame(int(index)), (label.shape[0], label.shape[1])))
        if progress is not None:
            progress(done + 1, count)
    return confusion.scores(data.classes.names)


def validate(
    model: SegmentationNetwork,
    data: LabelledSet,
    size_hw: tuple[int, int],
    contract: InputConfig,
    *,
    max_pictures: int = 0,
    confusion: ConfusionMatrix | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Scores | None:
    """:func:`score` of a network of any mode, which is left as it was; arguments as there and of :func:`mask_of`."""
    with evaluating(model):
        return score(
            lambda frame, shape: mask_of(model, frame, size_hw, contract, shape),
            data,
            confusion=ConfusionMatrix(model.num_classes) if confusion is None else confusion,
            max_pictures=max_pictures,
            progress=progress,
            stop=stop,
        )


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
