"""The pieces that networks are made of."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvBnRelu", "HasPooled", "full_size", "global_average", "initialise", "upsampled"]


class ConvBnRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


@runtime_checkable
class HasPooled(Protocol):
    """A part of a network with layers on globally pooled maps, which are counted apart (``count_operations``)."""

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""


def global_average(x: Tensor) -> Tensor:
    """Mean over the map: (N, C, H, W) -> (N, C, 1, 1). Exports as one GlobalAveragePool."""
    return F.adaptive_avg_pool2d(x, 1)


def upsampled(x: Tensor, factor: int) -> Tensor:
    """Bilinear, ``align_corners=False`` (the convention of both papers' networks). A factor, so ONNX gets constants."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def full_size(logits: Tensor, factor: int) -> Tensor:
    """Upsampled logits, float32 where mixed precision gives less: losses want it, and here it costs least."""
    return upsampled(logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits, factor)


def initialise(module: nn.Module, *, negative_slope: float) -> None:
    """Kaiming, fan in, for every convolution; zero biases. Slope 0 is the gain of a ReLU, 1 that of none."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, a=negative_slope)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
