"""Colour jitter and blur of mixed pictures, on whatever device they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from rtda_training.adapt.slots import number

__all__ = ["AppearanceConfig", "blurred", "changed", "recoloured"]

_SIGMA = (0.15, 1.15)  # pixels, as in the published codes
_RADIUS = 4  # pixels; beyond it a Gaussian of the largest sigma has less than 0.1 % of its weight


@dataclasses.dataclass(frozen=True)
class AppearanceConfig:
    """Changes to mixed pictures alone.

    Attributes:
        jitter: Largest relative change of brightness, contrast and saturation, and largest turn of the hue as a share
            of a full one.
        jitter_probability: Share of the pictures whose colours change. The published codes call this ``p = 0.2`` and
            change colours where a random number is *above* it.
        blur_probability: Share of the pictures blurred, with sigma 0.15..1.15 pixels.
        grey_probability: Share of the pictures that lose their colours (0.2 in SAC).
    """

    jitter: float = number(0.2, 0.0, 0.5)
    jitter_probability: float = number(0.8, 0.0, 1.0)
    blur_probability: float = number(0.5, 0.0, 1.0)
    grey_probability: float = number(0.0, 0.0, 1.0)


def changed(frames: Tensor, config: AppearanceConfig, generators: Sequence[np.random.Generator]) -> Tensor:
    """Each picture changed as its own generator draws; every generator is moved by the same amount, whatever it draws.

    Args:
        frames: float32 (N, H, W, 3) BGR, 0..255; not modified.
        config: How much and how often.
        generators: N of them.
    """
    jittered, grey, blurry = [], [], []
    shifts, sigmas = [], []
    for place, rng in enumerate(generators):
        jitters, shift = rng.random() < config.jitter_probability, rng.uniform(-1.0, 1.0, 4) * config.jitter
        blurs, sigma = rng.random() < config.blur_probability, rng.uniform(*_SIGMA)
        greys = rng.random() < config.grey_probability
        if greys:
            grey.append(place)
        if jitters and config.jitter > 0.0:
            jittered.append(place)
            shifts.append(shift)
        if blurs:
            blurry.append(place)
            sigmas.append(sigma)
    result = frames.clone()
    if jittered:
        result[jittered] = recoloured(result[jittered], np.stack(shifts))
    if grey:
        result[grey] = result[grey].mean(dim=3, keepdim=True).expand(-1, -1, -1, 3)
    if blurry:
        result[blurry] = blurred(result[blurry], np.array(sigmas))
    return result


def recoloured(frames: Tensor, shifts: np.ndarray) -> Tensor:
    """Turn the hue about the grey axis, then scale saturation, contrast (about the picture's mean) and brightness.

    All four are linear in the pixel, so they are one matrix per picture, and nothing is clipped before the end.

    Args:
        frames: float32 (N, H, W, 3) BGR, 0..255.
        shifts: (N, 4): relative change of brightness, contrast and saturation, and the hue's turn (1: once around).

    Returns:
        float32 of the same shape, clipped to 0..255.
    """
    brightness, contrast, saturation = (1.0 + shifts[:, :3]).T
    grey = np.full((3, 3), 1.0 / 3.0)
    matrices = []
    for place, turn in enumerate(shifts[:, 3]):
        kept = saturation[place] * _hue_matrix(float(turn)) + (1.0 - saturation[place]) * grey
        matrices.append(brightness[place] * contrast[place] * kept)
    matrix = torch.as_tensor(np.stack(matrices), dtype=torch.float32, device=frames.device)
    pivot = torch.as_tensor(brightness * (1.0 - contrast), dtype=torch.float32, device=frames.device)
    # Hue and saturation keep the mean of the channels, so that contrast's pivot is the plain picture's.
    offset = pivot * frames.mean(dim=(1, 2, 3))
    pixels = (frames[:, :, :, None, :] * matrix[:, None, None, :, :]).sum(dim=-1)
    return (pixels + offset[:, None, None, None]).clamp_(0.0, 255.0)


def blurred(frames: Tensor, sigmas: np.ndarray) -> Tensor:
    """Gaussian blur, each picture with its own sigma in pixels; borders are mirrored.

    Args:
        frames: float32 (N, H, W, 3); H and W at least 5.
        sigmas: (N,), positive.
    """
    count = frames.shape[0]
    reach = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (reach[None] / sigmas[:, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    kernel = torch.as_tensor(weights, dtype=torch.float32, device=frames.device).repeat_interleave(3, dim=0)
    planes = frames.permute(0, 3, 1, 2).reshape(1, 3 * count, *frames.shape[1:3])
    planes = functional.pad(planes, (_RADIUS, _RADIUS, _RADIUS, _RADIUS), mode="reflect")
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=3 * count)
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=3 * count)
    return planes.reshape(count, 3, *frames.shape[1:3]).permute(0, 2, 3, 1)


def _hue_matrix(turn: float) -> np.ndarray:
    """Rotation of colours about the grey axis (Rodrigues' formula)."""
    angle = 2.0 * math.pi * turn
    along, across = (1.0 - math.cos(angle)) / 3.0, math.sin(angle) / math.sqrt(3.0)
    skew = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return math.cos(angle) * np.eye(3) + along * np.ones((3, 3)) + across * skew
