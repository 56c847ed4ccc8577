"""FDA: the target's low frequencies on the source's pictures."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Style
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import component, number

__all__ = ["FourierStyle", "FourierStyleConfig", "fourier_transfer"]


@dataclasses.dataclass(frozen=True)
class FourierStyleConfig:
    """Half the window as a share of the shorter side, and the share of the steps that get the style."""

    beta: float = number(0.01, 0.0, 0.5)
    probability: float = number(1.0, 0.0, 1.0)


@component("style", "fda", FourierStyleConfig)
class FourierStyle(Style):
    """Each source picture with the low-frequency amplitudes of the target picture at its place in the batch."""

    needs_target = True

    def __init__(self, config: FourierStyleConfig, stage: StageContext) -> None:
        self._config = config
        height, width = stage.size_hw
        if _reach(height, width, config.beta) == 0:
            stage.tell(
                f"fda.beta {config.beta:g} at {width}x{height} swaps the mean colour alone: light and shade come with"
                f" --set fda.beta={math.ceil(100 / min(height, width)) / 100:g} or more"
            )

    def apply(self, context: StepContext) -> Tensor:
        frames, target = context.source_frames, context.target_frames
        assert target is not None
        if context.rng("fda").random() >= self._config.probability:
            return frames
        styled = fourier_transfer(frames.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), self._config.beta)
        return styled.permute(0, 2, 3, 1)


def fourier_transfer(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Give each source picture the low-frequency amplitudes of a target picture and keep its phases (FDA).

    Amplitudes are swapped for all frequencies ``|ky|, |kx| <= floor(min(H, W) * beta)``, the mean included. The window
    is symmetric, so the result is real; equal pictures come back unchanged; ``beta`` 0.5 swaps everything.

    Args:
        source: float32 (N, 3, H, W), raw pixels 0..255 (never normalised ones: their mean is in the spectrum).
        target: float32 (N, 3, H, W), raw pixels, of the same shape.
        beta: Half the width of the window as a share of the shorter side, 0..0.5.

    Returns:
        float32 (N, 3, H, W), clipped to 0..255.

    Raises:
        ConfigError: If ``beta`` is outside 0..0.5, or the shapes differ.

    Source: Yang and Soatto, FDA (CVPR 2020), section 3.1.
    """
    if not 0.0 <= beta <= 0.5:
        raise ConfigError(f"FDA's beta must lie between 0 and 0.5, got {beta}", hint="the paper uses 0.01 to 0.1")
    if source.shape != target.shape:
        raise ConfigError(
            f"FDA needs pictures of one shape, got {tuple(source.shape)} and {tuple(target.shape)}",
            hint="scale both to the network's size first",
        )
    height, width = source.shape[-2:]
    reach = _reach(height, width, beta)
    source_spectrum = torch.fft.rfft2(source.float())  # (N, 3, H, W/2 + 1), horizontal frequencies from 0
    target_spectrum = torch.fft.rfft2(target.float())
    vertical = torch.fft.fftfreq(height, d=1.0 / height, device=source.device).abs() <= reach
    horizontal = torch.arange(width // 2 + 1, device=source.device) <= reach
    swapped = vertical[:, None] & horizontal[None, :]
    amplitude = torch.where(swapped, target_spectrum.abs(), source_spectrum.abs())
    styled = torch.polar(amplitude, source_spectrum.angle())
    pixels: Tensor = torch.fft.irfft2(styled, s=(height, width))
    return pixels.clamp(0.0, 255.0)


def _reach(height: int, width: int, beta: float) -> int:
    """The highest frequency that is swapped, in periods per picture; 0 is the mean."""
    return int(min(height, width) * beta)
