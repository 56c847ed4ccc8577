"""LAB statistics: source pictures with the mean and spread of a target picture's lightness and colours."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rtda_training.adapt.components import Style
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import component, number

__all__ = ["LabStyle", "LabStyleConfig", "bgr_from_lab", "lab_from_bgr", "lab_transfer"]

# Linear sRGB to XYZ over the white point D65 (IEC 61966-2-1), so that white is (1, 1, 1).
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.950470, 1.0, 1.088830)
_EDGE = 6.0 / 29.0  # CIE 1976: a cube root above its cube, a line below


@dataclasses.dataclass(frozen=True)
class LabStyleConfig:
    """How far a picture goes towards the target's statistics, and the share of the steps that get the style."""

    strength: float = number(1.0, 0.0, 1.0)
    probability: float = number(1.0, 0.0, 1.0)


@component("style", "lab", LabStyleConfig)
class LabStyle(Style):
    """Each source picture with the LAB statistics of the target picture at its place in the batch.

    Source: Reinhard et al., Color transfer between images (IEEE CG&A 2001); in CIELAB, as He et al., Multi-source
    domain adaptation with collaborative learning (CVPR 2021), section 3.2.
    """

    needs_target = True

    def __init__(self, config: LabStyleConfig, stage: StageContext) -> None:
        del stage
        self._config = config

    @torch.no_grad()
    def apply(self, context: StepContext) -> Tensor:
        frames, target = context.source_frames, context.target_frames
        assert target is not None
        if context.rng("lab").random() >= self._config.probability:
            return frames
        return torch.lerp(frames, lab_transfer(frames, target), self._config.strength)


def lab_transfer(source: Tensor, target: Tensor) -> Tensor:
    """Give each channel of each source picture's LAB values the mean and standard deviation of the target picture's.

    Args:
        source: float32 (N, H, W, 3) BGR, 0..255; not modified.
        target: float32 (N, h, w, 3) BGR, 0..255.

    Returns:
        float32 (N, H, W, 3) BGR, clipped to 0..255. A channel without spread gets the target's mean alone.
    """
    lab, wanted = lab_from_bgr(source), lab_from_bgr(target)
    spread = lab.std(dim=(1, 2), keepdim=True)
    factor = torch.where(spread > 1e-3, wanted.std(dim=(1, 2), keepdim=True) / spread.clamp(min=1e-3), 0.0)
    moved = (lab - lab.mean(dim=(1, 2), keepdim=True)) * factor + wanted.mean(dim=(1, 2), keepdim=True)
    return bgr_from_lab(moved)


def lab_from_bgr(frames: Tensor) -> Tensor:
    """sRGB as CIELAB.

    Args:
        frames: float32 (..., 3) BGR, 0..255.

    Returns:
        float32 (..., 3): L 0..100, a and b about -110..100.
    """
    rgb = frames.flip(-1) / 255.0
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0.0) ** 2.4, rgb / 12.92)
    xyz = (linear @ _matrix(frames).T) / frames.new_tensor(_WHITE)
    curved = torch.where(xyz > _EDGE**3, xyz.clamp(min=0.0) ** (1.0 / 3.0), xyz / (3.0 * _EDGE**2) + 4.0 / 29.0)
    x, y, z = curved.unbind(dim=-1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=-1)


def bgr_from_lab(lab: Tensor) -> Tensor:
    """The inverse of :func:`lab_from_bgr`; what sRGB cannot show is clipped to 0..255."""
    lightness, a, b = lab.unbind(dim=-1)
    y = (lightness + 16.0) / 116.0
    curved = torch.stack([y + a / 500.0, y, y - b / 200.0], dim=-1)
    xyz = torch.where(curved > _EDGE, curved**3, 3.0 * _EDGE**2 * (curved - 4.0 / 29.0)) * lab.new_tensor(_WHITE)
    linear = xyz @ torch.linalg.inv(_matrix(lab)).T
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0) ** (1.0 / 2.4) - 0.055, 12.92 * linear)
    return (255.0 * rgb.flip(-1)).clamp(0.0, 255.0)


def _matrix(like: Tensor) -> Tensor:
    return like.new_tensor(_XYZ)
