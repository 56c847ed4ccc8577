"""The pieces that networks are made of."""

from __future__ import annotations

import abc
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ConvBn",
    "ConvBnRelu",
    "HasPooled",
    "NormReluConv",
    "Reparameterised",
    "full_size",
    "fuse_paths",
    "global_average",
    "initialise",
    "upsampled",
    "upsampled_to",
]


class ConvBn(nn.Module):
    """Convolution and batch norm; padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


class ConvBnRelu(ConvBn):
    """Convolution without bias (unless it is asked for), batch norm, ReLU; padded so that stride 1 keeps the size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, *, bias: bool = False
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(super().forward(x))
        return out


class NormReluConv(nn.Module):
    """Batch norm, ReLU, convolution: what is added up before its activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.relu(self.bn(x)))
        return out


class Reparameterised(nn.Module, abc.ABC):
    """A block that has more layers while it is trained than where it is deployed, for the same answer."""

    @abc.abstractmethod
    def fuse(self) -> None:
        """Become the deployed form, in place; batch norms count with the statistics that they have now."""


def fuse_paths(network: nn.Module) -> int:
    """Fuse every ``Reparameterised`` block, in place; the number of them.

    Nothing can be averaged, measured or trained in a fused block as before: only what is deployed is fused.
    """
    blocks = [module for module in network.modules() if isinstance(module, Reparameterised)]
    for block in blocks:
        block.fuse()
    return len(blocks)


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


def upsampled_to(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear, ``align_corners=False``, to another map's height and width.

    An ONNX file gets constants: scales where both sides grow by whole factors, else sizes.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)
    wanted, sides = ([int(side) for side in entry.shape[2:]] for entry in (other, x))
    if wanted == sides:
        return x
    if any(more % side for more, side in zip(wanted, sides)):
        return F.interpolate(x, size=wanted, mode="bilinear", align_corners=False)
    factors = [float(more // side) for more, side in zip(wanted, sides)]
    return F.interpolate(x, scale_factor=factors, mode="bilinear", align_corners=False)


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
