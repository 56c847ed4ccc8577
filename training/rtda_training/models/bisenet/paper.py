"""The parts of a BiSeNet close to the ECCV paper's: 128-channel context merged top-down, 256-channel fusion and head.

Source: Yu et al., BiSeNet (ECCV 2018); layout and channel counts of CoinCheung/BiSeNet (BiSeNetV1), so that its
checkpoints load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.blocks import ConvBnRelu, global_average

__all__ = ["PaperContextPath", "PaperFusion", "paper_aux_heads", "paper_head", "paper_spatial_path"]

_CONTEXT_CHANNELS = 128
_SPATIAL_CHANNELS = 128
_FUSED_CHANNELS = 256
_AUX_CHANNELS = 64


def paper_spatial_path() -> nn.Sequential:
    """7x7, 3x3, 3x3 of stride 2 and a 1x1: (N, 3, H, W) -> (N, 128, H/8, W/8)."""
    return nn.Sequential(
        ConvBnRelu(3, 64, 7, stride=2),
        ConvBnRelu(64, 64, 3, stride=2),
        ConvBnRelu(64, 64, 3, stride=2),
        ConvBnRelu(64, _SPATIAL_CHANNELS, 1),
    )


class AttentionRefinement(nn.Module):
    """3x3 to 128 channels, reweighed by a 1x1 convolution, batch norm and sigmoid of the channel means."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.block = ConvBnRelu(in_channels, _CONTEXT_CHANNELS, 3)
        self.attention = nn.Conv2d(_CONTEXT_CHANNELS, _CONTEXT_CHANNELS, 1, bias=False)
        self.bn = nn.BatchNorm2d(_CONTEXT_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        attention: Tensor = self.bn(self.attention(global_average(x))).sigmoid()
        return x * attention


class PaperContextPath(nn.Module):
    """Global mean, stride 32 and stride 16, added from the top down to stride 8."""

    out_channels = _CONTEXT_CHANNELS

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.arm16 = AttentionRefinement(channels[2])
        self.arm32 = AttentionRefinement(channels[3])
        self.global_context = ConvBnRelu(channels[3], _CONTEXT_CHANNELS, 1)
        self.merge16 = ConvBnRelu(_CONTEXT_CHANNELS, _CONTEXT_CHANNELS, 3)
        self.merge32 = ConvBnRelu(_CONTEXT_CHANNELS, _CONTEXT_CHANNELS, 3)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x16, x32 = features[2], features[3]
        x = self.arm32(x32) + self.global_context(global_average(x32))
        at16 = self.merge32(_doubled(x))  # (N, 128, H/16, W/16)
        at8 = self.merge16(_doubled(self.arm16(x16) + at16))  # (N, 128, H/8, W/8)
        return at8, (at8, at16)

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        tail = self.global_context
        return self.arm16.attention, self.arm16.bn, self.arm32.attention, self.arm32.bn, tail.conv, tail.bn


class PaperFusion(nn.Module):
    """Joins both paths into 256 channels and reweighs these by their means."""

    def __init__(self) -> None:
        super().__init__()
        self.block = ConvBnRelu(_SPATIAL_CHANNELS + _CONTEXT_CHANNELS, _FUSED_CHANNELS, 1)
        self.attention = nn.Conv2d(_FUSED_CHANNELS, _FUSED_CHANNELS, 1, bias=False)
        self.bn = nn.BatchNorm2d(_FUSED_CHANNELS)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.block(torch.cat((spatial, context), dim=1))
        attention: Tensor = self.bn(self.attention(global_average(x))).sigmoid()
        return x * (1 + attention)  # x + x * attention in one pass over the map

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        return self.attention, self.bn


class Head(nn.Module):
    """3x3 convolution, batch norm, ReLU, then a 1x1 convolution to logits."""

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.block = ConvBnRelu(in_channels, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.block(x))
        return out


def paper_head(num_classes: int) -> nn.Module:
    return Head(_FUSED_CHANNELS, _FUSED_CHANNELS, num_classes)


def paper_aux_heads(num_classes: int) -> nn.ModuleList:
    """On the merged maps at strides 8 and 16."""
    return nn.ModuleList(Head(_CONTEXT_CHANNELS, _AUX_CHANNELS, num_classes) for _ in range(2))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
