"""Batches as a pure function of the step, so that a resumed run sees exactly what an uninterrupted one would."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rtda_deploy.errors import DataError, FileAccessError
from rtda_deploy.optional import require
from rtda_training.data.config import AugmentConfig, InputConfig
from rtda_training.labels import IGNORE_INDEX
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = ["INTERPOLATION", "Batch", "Draw", "PictureOrder", "StepBatches", "batches_from", "normalise"]


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


_REPLACEMENTS = 10  # pictures tried in the place of one that cannot be used
_CROPS = 10  # windows tried for one that holds enough of a wanted class (DAFormer's number)
INTERPOLATION = {"linear": 1, "cubic": 2, "area": 3, "nearest": 0}  # OpenCV's codes


class Batch(NamedTuple):
    """One step's pictures of one domain.

    Attributes:
        frames: uint8 (N, H, W, 3) BGR.
        labels: uint8 (N, H, W), 255 where not labelled; empty for an unlabelled set.
        skipped: Name of each picture that could not be used and was replaced by another, its fault, and the fix.
    """

    frames: Tensor
    labels: Tensor
    skipped: tuple[tuple[str, str, str], ...]


class StepBatches(Dataset[Batch]):
    """Item ``step`` is the batch of that step.

    Order and augmentation depend on nothing but ``seed``, ``stream`` and the position in the stream of pictures, so a
    resumed run sees what an uninterrupted one would, and several processes see together what one would see alone.

    Args:
        pictures: A set; with labels, if they are to be learned from.
        size_hw: Of the network's input.
        batch_size: Pictures per step of all processes together.
        seed: The plan's.
        stream: Tells streams of one seed apart.
        augment: What is drawn anew for each picture.
        interpolation: How pictures are resized.
        steps: Length.
        order: Which picture stands where; None: each once an epoch, in an order drawn per epoch.
        part: This process and the number of processes; it gets its share of each batch.
    """

    def __init__(
        self,
        pictures: UnlabelledSet,
        *,
        size_hw: tuple[int, int],
        batch_size: int,
        seed: int,
        stream: int,
        augment: AugmentConfig,
        interpolation: str = "linear",
        steps: int,
        order: PictureOrder | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._pictures = pictures
        self._size_hw = size_hw
        self._batch_size = batch_size
        self._seed = (seed, stream)
        self._augment = augment
        self._interpolation = INTERPOLATION[interpolation]
        self._steps = steps
        self._order = order or PictureOrder(len(pictures), self._seed)
        rank, processes = part
        self._places = range(batch_size * rank // processes, batch_size * (rank + 1) // processes)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        frames, labels = [], []
        skipped: list[tuple[str, str, str]] = []
        for place in self._places:
            frame, label = self._usable(step * self._batch_size + place, skipped)
            frames.append(frame)
            if label is not None:
                labels.append(label)
        label_batch = torch.from_numpy(np.stack(labels)) if labels else torch.empty(0, dtype=torch.uint8)
        return Batch(torch.from_numpy(np.stack(frames)), label_batch, tuple(skipped))

    def _usable(self, position: int, skipped: list[tuple[str, str, str]]) -> tuple[np.ndarray, np.ndarray | None]:
        """The picture at ``position``, or, where it cannot be used, one drawn in its place."""
        draw = self._order.draw(position)
        for attempt in range(_REPLACEMENTS):
            try:
                return self._picture(draw, np.random.default_rng((*self._seed, 1, position)))
            except (DataError, FileAccessError) as err:
                skipped.append((self._pictures.name(draw.index), err.message, err.hint))
                again = np.random.default_rng((*self._seed, 2, position, attempt))
                draw = Draw(int(again.integers(len(self._pictures))))
        raise DataError(
            f"{skipped[0][1]}; {_REPLACEMENTS - 1} pictures drawn in its place cannot be used either",
            hint=f"{skipped[0][2]}; all faults: {self._pictures.check_command}",
        )

    def _picture(self, draw: Draw, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        cv2 = require("cv2", extra="training", purpose="to prepare pictures")
        frame, label = self._read(draw.index)
        height, width = self._size_hw
        scale = rng.uniform(self._augment.scale_min, self._augment.scale_max)
        scaled_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = _resized(frame, scaled_wh, self._interpolation)
        label = None if label is None else _resized(label, scaled_wh, cv2.INTER_NEAREST)
        for _ in range(_CROPS if draw.wanted >= 0 else 1):
            top, left = rng.random(), rng.random()
            crop = None if label is None else _window(label, self._size_hw, top, left, fill=IGNORE_INDEX)
            if crop is None or draw.wanted < 0 or int((crop == draw.wanted).sum()) >= draw.least_pixels:
                break
        frame, label = _window(frame, self._size_hw, top, left, fill=0), crop
        if self._augment.flip and rng.random() < 0.5:
            frame = frame[:, ::-1]
            label = None if label is None else label[:, ::-1]
        frame = _photometric(frame, self._augment, rng)
        return np.ascontiguousarray(frame), None if label is None else np.ascontiguousarray(label)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        if isinstance(self._pictures, LabelledSet):
            return self._pictures.pair(index)
        return self._pictures.frame(index), None


def batches_from(data: StepBatches, start: int, workers: int) -> Iterator[Batch]:
    """Batches ``start``, ``start + 1``, …, prepared by ``workers`` processes (0: here)."""
    loader: DataLoader[Batch] = DataLoader(
        data,
        batch_size=None,
        sampler=range(start, len(data)),
        num_workers=workers,
        generator=torch.Generator(),  # its own: making an iterator must not move the global one
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def normalise(frames: Tensor, contract: InputConfig) -> Tensor:
    """Raw pixels as the network's input.

    Args:
        frames: uint8 or float (N, H, W, 3) BGR, 0..255.
        contract: Channel order, scale, mean and std of the ModelSpec.

    Returns:
        float32 (N, 3, H, W), channels_last in memory.
    """
    pictures = frames.float().permute(0, 3, 1, 2)  # a view: NHWC in memory is NCHW channels_last
    if contract.channel_order == "rgb":
        pictures = pictures.flip(1)
    mean = torch.tensor(contract.mean, device=frames.device).view(1, 3, 1, 1)
    std = torch.tensor(contract.std, device=frames.device).view(1, 3, 1, 1)
    return ((pictures * contract.pixel_scale - mean) / std).contiguous(memory_format=torch.channels_last)


def _resized(picture: np.ndarray, size_wh: tuple[int, int], interpolation: int) -> np.ndarray:
    if (picture.shape[1], picture.shape[0]) == size_wh:
        return picture
    cv2 = require("cv2", extra="training", purpose="to prepare pictures")
    return np.asarray(cv2.resize(picture, size_wh, interpolation=interpolation))


def _window(picture: np.ndarray, size_hw: tuple[int, int], top: float, left: float, fill: int) -> np.ndarray:
    """A window of ``size_hw`` at a relative place; what lies outside the picture is ``fill``."""
    height, width = size_hw
    short_h, short_w = max(0, height - picture.shape[0]), max(0, width - picture.shape[1])
    if short_h or short_w:
        before_h, before_w = int(top * (short_h + 1)), int(left * (short_w + 1))
        margins = [(before_h, short_h - before_h), (before_w, short_w - before_w)]
        picture = np.pad(picture, margins + [(0, 0)] * (picture.ndim - 2), constant_values=fill)
    y = int(top * (picture.shape[0] - height + 1))
    x = int(left * (picture.shape[1] - width + 1))
    return picture[y : y + height, x : x + width]


def _photometric(frame: np.ndarray, augment: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    brightness, contrast, saturation = 1.0 + rng.uniform(-1.0, 1.0, 3) * (
        augment.brightness,
        augment.contrast,
        augment.saturation,
    )
    blur = rng.random() < augment.blur
    sigma = rng.uniform(0.3, 1.5)
    changed = frame
    if augment.brightness or augment.contrast or augment.saturation:
        pixels = frame.astype(np.float32)
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * saturation
        mean = pixels.mean()
        pixels = (mean + (pixels - mean) * contrast) * brightness
        changed = np.clip(pixels, 0.0, 255.0).astype(np.uint8)
    if blur:
        cv2 = require("cv2", extra="training", purpose="to prepare pictures")
        changed = cv2.GaussianBlur(np.ascontiguousarray(changed), (0, 0), sigma)
    return changed
