"""The parts of the BiSeNet of the RTDA papers.

Not the BiSeNet of the ECCV paper: attention keeps the backbone's channels, both refined maps are concatenated at
stride 8, and the fusion ends in ``num_classes`` channels. Channel counts: 1024 = 256 + 256 + 512 into the fusion for
ResNet-18, 3328 = 256 + 1024 + 2048 for ResNet-101.

Source: Tavera et al., RTDA; the re-implementation of BiSeNet that its authors and later course papers used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtda_training.models.blocks import ConvBnRelu, global_average, upsampled

__all__ = ["RtdaContextPath", "RtdaFusion", "rtda_aux_heads", "rtda_head", "rtda_spatial_path"]

_SPATIAL_CHANNELS = (64, 128, 256)


def rtda_spatial_path() -> nn.Sequential:
    """Three 3x3 convolutions of stride 2: (N, 3, H, W) -> (N, 256, H/8, W/8)."""
    inputs = (3, *_SPATIAL_CHANNELS[:-1])
    return nn.Sequential(*(ConvBnRelu(i, o, 3, stride=2) for i, o in zip(inputs, _SPATIAL_CHANNELS, strict=True)))


class ChannelAttention(nn.Module):
    """One weight in 0..1 per channel, from the mean of the map: 1x1 convolution, batch norm, sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(pooled)).sigmoid()  # (N, C, 1, 1)
        return out


class RtdaContextPath(nn.Module):
    """Refines the maps at strides 16 and 32 and brings both to stride 8.

    Attributes:
        out_channels: Of the concatenated context: 256 + 512 or 1024 + 2048.
        aux_channels: Of the two maps the auxiliary heads read.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.aux_channels = (channels[2], channels[3])
        self.out_channels = sum(self.aux_channels)
        self.arm16 = ChannelAttention(channels[2])
        self.arm32 = ChannelAttention(channels[3])

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x16, x32 = features[2], features[3]
        mean32 = global_average(x32)
        refined16 = x16 * self.arm16(global_average(x16))
        # The global context multiplies the refined map: both factors are per channel, so they meet before the map.
        refined32 = x32 * (self.arm32(mean32) * mean32)
        up16 = upsampled(refined16, 2)  # (N, C16, H/8, W/8)
        up32 = upsampled(refined32, 4)  # (N, C32, H/8, W/8)
        return torch.cat((up16, up32), dim=1), (up16, up32)

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        return self.arm16.conv, self.arm16.bn, self.arm32.conv, self.arm32.bn


class RtdaFusion(nn.Module):
    """Joins both paths into one channel per class and reweighs these by their means."""

    def __init__(self, context_channels: int, num_classes: int) -> None:
        super().__init__()
        self.block = ConvBnRelu(_SPATIAL_CHANNELS[-1] + context_channels, num_classes, 3)
        self.squeeze = nn.Conv2d(num_classes, num_classes, 1)
        self.excite = nn.Conv2d(num_classes, num_classes, 1)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.block(torch.cat((spatial, context), dim=1))
        attention: Tensor = self.excite(self.squeeze(global_average(x)).relu()).sigmoid()
        return x * (1 + attention)  # x + x * attention in one pass over the map

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        return self.squeeze, self.excite


def rtda_head(num_classes: int) -> nn.Module:
    """A 1x1 convolution from the fused class channels to logits."""
    return nn.Conv2d(num_classes, num_classes, 1)


def rtda_aux_heads(context: RtdaContextPath, num_classes: int) -> nn.ModuleList:
    """A 1x1 convolution on each refined map, at stride 8."""
    return nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in context.aux_channels)
