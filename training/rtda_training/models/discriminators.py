"""Domain discriminators on segmentation probabilities: FCD, FCD-Light, Light&Thin.

Kernel 4, stride 2, padding 1. The papers' text says stride 1, padding 2; their released code and every printed
operation count say otherwise (tests/training/models/test_complexity.py). No batch norm; one logit, not two channels.

Source: Tavera et al., RTDA, section III; FCD is the discriminator of Tsai et al., AdaptSegNet (CVPR 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError

__all__ = ["DISCRIMINATORS", "Discriminator", "build_discriminator"]

_NEGATIVE_SLOPE = 0.2  # of the LeakyReLU between layers
_KERNEL, _STRIDE, _PADDING = 4, 2, 1


class _Layout(NamedTuple):
    channels: tuple[int, ...]
    separable: bool
    upsample: bool


_LAYOUTS = {
    "fcd": _Layout((64, 128, 256, 512, 1), separable=False, upsample=True),
    "fcd-light": _Layout((64, 128, 256, 512, 1), separable=True, upsample=True),
    "light-thin": _Layout((64, 128, 1), separable=True, upsample=False),
}

DISCRIMINATORS = tuple(_LAYOUTS)


class Discriminator(nn.Module):
    """Which domain each region comes from: (N, num_classes, H, W) probabilities -> one logit channel.

    The logits have the input's size, or 1/8 of it for ``light-thin``. H and W are multiples of ``stride``.
    """

    def __init__(self, num_classes: int, layout: _Layout, bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, out_channels in zip((num_classes, *layout.channels), layout.channels, strict=False):
            layers += [*_halving(in_channels, out_channels, layout.separable, bias), _activation()]
        self.layers = nn.Sequential(*layers[:-1])  # no activation after the last
        self._separable = layout.separable
        self.stride = _STRIDE ** len(layout.channels)
        self.upsample = (
            nn.Upsample(scale_factor=self.stride, mode="bilinear", align_corners=False)
            if layout.upsample
            else nn.Identity()
        )

    def forward(self, probabilities: Tensor) -> Tensor:
        height, width = probabilities.shape[2:]
        if height % self.stride or width % self.stride:
            raise ModelError(
                f"this discriminator takes maps in multiples of {self.stride}, got {height}x{width} (HxW)",
                hint="give it the probabilities at the network's input size",
            )
        if self._separable and probabilities.device.type == "cpu":
            # There, the backward of oneDNN's depthwise convolutions takes three times as long in bf16 as in float32.
            with torch.autocast("cpu", enabled=False):
                return self._logits(probabilities.float())
        return self._logits(probabilities)

    def _logits(self, probabilities: Tensor) -> Tensor:
        logits: Tensor = self.upsample(self.layers(probabilities))
        return logits


def build_discriminator(name: str, num_classes: int = 19, bias: bool = True, init: str = "torch") -> Discriminator:
    """A discriminator by name.

    Parameters for 19 classes: ``fcd`` 2,781,121, ``fcd-light`` 191,364 (189,424 without biases: the figure of the
    multi-layer self-training paper), ``light-thin`` 13,316.

    Args:
        name: ``"fcd"``, ``"fcd-light"`` or ``"light-thin"``.
        num_classes: Channels of the maps it looks at.
        bias: Whether its convolutions have biases.
        init: ``"torch"``, its usual first weights, or ``"he"``: each layer keeps the variance of its input, biases 0
            (He et al., ICCV 2015, section 2.2). PyTorch's keep a third and less: of six separable layers' input, too
            little reaches the logits to tell anything apart at first.

    Raises:
        ConfigError: If ``name`` or ``init`` is unknown.
    """
    if name not in _LAYOUTS:
        raise ConfigError(f"unknown discriminator {name!r}", hint=f"known: {', '.join(DISCRIMINATORS)}")
    if init not in ("torch", "he"):
        raise ConfigError(f"unknown init {init!r}", hint="known: torch, he")
    made = Discriminator(num_classes, _LAYOUTS[name], bias)
    if init == "he":
        made.apply(_he)
    return made


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=_NEGATIVE_SLOPE, nonlinearity="leaky_relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _halving(in_channels: int, out_channels: int, separable: bool, bias: bool) -> tuple[nn.Module, ...]:
    """One layer that halves the map; separable: 4x4 per channel, then 1x1 across channels."""
    if not separable:
        return (nn.Conv2d(in_channels, out_channels, _KERNEL, _STRIDE, _PADDING, bias=bias),)
    return (
        nn.Conv2d(in_channels, in_channels, _KERNEL, _STRIDE, _PADDING, groups=in_channels, bias=bias),
        nn.Conv2d(in_channels, out_channels, 1, bias=bias),
    )


def _activation() -> nn.Module:
    return nn.LeakyReLU(_NEGATIVE_SLOPE, inplace=True)
