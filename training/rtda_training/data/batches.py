"""Batches as a pure function of the step, so that a resumed run sees exactly what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rtda_deploy.optional import require
from rtda_training.labels import IGNORE_INDEX
from rtda_training.plan import AugmentConfig, InputConfig
from rtda_training.readers import LabelledSet, UnlabelledSet

__all__ = ["StepBatches", "batches_from", "normalise"]

_INTERPOLATION = {"linear": 1, "cubic": 2, "area": 3, "nearest": 0}  # OpenCV's codes


class StepBatches(Dataset[tuple[Tensor, Tensor]]):
    """Item ``step`` is the batch of that step: uint8 (N, H, W, 3) BGR and int64 (N, H, W), 255 where not labelled.

    An unlabelled set gives an empty label tensor. Every picture is seen once per epoch, in an order drawn per epoch;
    augmentation is drawn per picture and step. Both depend on nothing but ``seed``, ``stream`` and the step.
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
    ) -> None:
        self._pictures = pictures
        self._size_hw = size_hw
        self._batch_size = batch_size
        self._seed = (seed, stream)
        self._augment = augment
        self._interpolation = _INTERPOLATION[interpolation]
        self._steps = steps
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        frames, labels = [], []
        for place in range(self._batch_size):
            position = step * self._batch_size + place
            rng = np.random.default_rng((*self._seed, 1, position))
            frame, label = self._picture(self._index(position), rng)
            frames.append(frame)
            if label is not None:
                labels.append(label)
        label_batch = torch.from_numpy(np.stack(labels)).long() if labels else torch.empty(0, dtype=torch.long)
        return torch.from_numpy(np.stack(frames)), label_batch

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self._pictures))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((*self._seed, 0, epoch))
            self._order = (epoch, rng.permutation(len(self._pictures)))
        return int(self._order[1][place])

    def _picture(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        cv2 = require("cv2", extra="training", purpose="to prepare pictures")
        frame, label = self._read(index)
        height, width = self._size_hw
        scale = rng.uniform(self._augment.scale_min, self._augment.scale_max)
        scaled_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, scaled_wh, interpolation=self._interpolation)
        label = None if label is None else cv2.resize(label, scaled_wh, interpolation=cv2.INTER_NEAREST)
        top, left = rng.random(), rng.random()
        frame = _window(frame, self._size_hw, top, left, fill=0)
        label = None if label is None else _window(label, self._size_hw, top, left, fill=IGNORE_INDEX)
        if self._augment.flip and rng.random() < 0.5:
            frame = frame[:, ::-1]
            label = None if label is None else label[:, ::-1]
        frame = _photometric(frame, self._augment, rng)
        return np.ascontiguousarray(frame), None if label is None else np.ascontiguousarray(label)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        if isinstance(self._pictures, LabelledSet):
            return self._pictures.pair(index)
        return self._pictures.frame(index), None


def batches_from(data: StepBatches, start: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches ``start``, ``start + 1``, …, prepared by ``workers`` processes (0: here)."""
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
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
