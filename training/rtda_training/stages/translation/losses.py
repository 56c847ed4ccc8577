"""Losses of a pair of translators: CycleGAN's and BDL's perceptual ones; and the pool of earlier translations.

Pictures are float32 (N, 3, H, W) in -1..1 throughout.

Source: Zhu et al., CycleGAN (ICCV 2017), section 3 and 4; Li et al., BDL (CVPR 2019), equations 2 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rtda_deploy.errors import CheckpointError

__all__ = [
    "PERCEPTUAL",
    "ImagePool",
    "cycle_loss",
    "discriminator_loss",
    "generator_loss",
    "half_linear_decay",
    "identity_loss",
    "perceptual_loss",
]

PERCEPTUAL = ("mse", "l1")  # BDL's code, BDL's text


def generator_loss(scores_of_translated: Tensor) -> Tensor:
    """LSGAN, the generator's side: every patch of a translation should score 1, as real ones do."""
    return _squared_to(scores_of_translated, 1.0)


def discriminator_loss(scores_of_real: Tensor, scores_of_translated: Tensor) -> Tensor:
    """LSGAN, the discriminator's side: real patches should score 1, translated ones 0; each is half of the loss."""
    return 0.5 * (_squared_to(scores_of_real, 1.0) + _squared_to(scores_of_translated, 0.0))


def cycle_loss(picture: Tensor, again: Tensor) -> Tensor:
    """Mean L1 between a picture and what came back after both translations."""
    return functional.l1_loss(again.float(), picture)


def identity_loss(picture: Tensor, kept: Tensor) -> Tensor:
    """Mean L1 between a picture and its translation into the domain that it is already of.

    It keeps colours from being exchanged at will; BDL's author warns against leaving it out (BDL#17).
    """
    return functional.l1_loss(kept.float(), picture)


def perceptual_loss(logits: Tensor, other: Tensor, distance: str = PERCEPTUAL[0]) -> Tensor:
    """Distance between a segmentation network's logits for two pictures: what is a road should stay a road.

    Each class map of each picture is first brought to mean 0 and variance 1 over its pixels, so that classes of
    large logits do not decide alone.

    Args:
        logits: float (N, C, H, W) of the picture.
        other: float (N, C, H, W) of what was made of it.
        distance: ``mse`` (BDL's code) or ``l1`` (its text).
    """
    between = functional.mse_loss if distance == "mse" else functional.l1_loss
    return between(functional.instance_norm(other.float()), functional.instance_norm(logits.float()))


def half_linear_decay(step: int, steps: int) -> float:
    """Factor on the learning rate: 1 in the first half of the steps, then down to 0 in a straight line."""
    return min(1.0, 2.0 * (1.0 - step / steps))


class ImagePool:
    """Earlier translations, so that a discriminator does not forget what generators did a while ago.

    Until it is full, pictures are kept and given back as they are. Then each is, one time in two, exchanged for an
    earlier one. Kept ones are rounded to the 256 levels that real pictures have: a quarter of the memory.

    Args:
        size: How many are kept; 0 gives every picture back.

    Source: Shrivastava et al., SimGAN (CVPR 2017), section 2.3, as CycleGAN uses it (size 50).
    """

    def __init__(self, size: int = 50) -> None:
        self._size = size
        self._kept: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._kept)

    def exchange(self, pictures: Tensor, rng: np.random.Generator) -> Tensor:
        """Pictures to show the discriminator instead of these, detached; random choices come from ``rng``."""
        pictures = pictures.detach()
        if not self._size:
            return pictures
        return torch.stack([self._one(picture, rng) for picture in pictures])

    def state_dict(self) -> dict[str, Any]:
        """The kept pictures, uint8 (K, 3, H, W)."""
        return {"pictures": torch.stack(self._kept) if self._kept else torch.empty(0, dtype=torch.uint8)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Go on with what ``state_dict()`` gave.

        Raises:
            CheckpointError: If it holds more pictures than fit.
        """
        pictures = state["pictures"]
        if len(pictures) > self._size:
            raise CheckpointError(
                f"a pool of {self._size} pictures cannot take the {len(pictures)} of a checkpoint",
                hint=f"set the pool to {len(pictures)}, as the run that is resumed had it",
            )
        self._kept = [picture.to(device) for picture in pictures]

    def _one(self, picture: Tensor, rng: np.random.Generator) -> Tensor:
        if len(self._kept) < self._size:
            self._kept.append(_stored(picture))
            return picture
        if rng.random() < 0.5:
            return picture
        place = int(rng.integers(self._size))
        earlier = self._kept[place]
        self._kept[place] = _stored(picture)
        return earlier.to(picture.dtype) / 127.5 - 1.0


def _stored(picture: Tensor) -> Tensor:
    return ((picture + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)


def _squared_to(scores: Tensor, wanted: float) -> Tensor:
    return (scores.float() - wanted).square().mean()
