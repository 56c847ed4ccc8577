"""STDC-1 and STDC-2 without a classifier, under the parameter names of their authors' files.

Source: Fan et al., Rethinking BiSeNet For Real-time Semantic Segmentation (CVPR 2021), section 3.1 and Table 2.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from rtda_training.models.backbones.base import Backbone, Channels, Features
from rtda_training.models.blocks import ConvBn, ConvBnRelu

__all__ = ["IGNORED_KEYS", "StdcNet", "layouts_of", "stages_of"]

IGNORED_KEYS = ("conv_last.", "fc.", "bn.", "linear.")  # the classifier of the ImageNet files
_DEPTHS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}  # blocks at 1/8, 1/16 and 1/32
_SHARES = (2, 4, 8, 8)  # a layer of a block gives that part of the block's channels


class _Block(nn.Module):
    """Four convolutions in a row, each of what the one before gives, and all that they give side by side."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        widths = [out_channels // share for share in _SHARES]
        others = (ConvBnRelu(i, o) for i, o in zip(widths, widths[1:]))
        self.conv_list = nn.ModuleList([ConvBnRelu(in_channels, half, 1), *others])
        self.avd_layer = _halving(half) if stride == 2 else None
        self.skip = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.conv_list
        x = first(x)
        found = [x]
        if self.avd_layer is not None:
            found = [self.skip(x)]
            x = self.avd_layer(x)
        for layer in others:
            x = layer(x)
            found.append(x)
        return torch.cat(found, dim=1)


def _halving(channels: int) -> nn.Sequential:
    """A depthwise convolution of stride 2 and its batch norm, as the authors' files name them."""
    pair = ConvBn(channels, channels, stride=2, groups=channels)
    return nn.Sequential(pair.conv, pair.bn)


class StdcNet(Backbone):
    """Two convolutions and three stages of blocks.

    Args:
        name: ``"stdc1"`` or ``"stdc2"``.
        channels: 64/256/512/1024 as published; multiples of 8 but for the first.
        output_stride: 32.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int) -> None:
        super().__init__(name, channels, output_stride)
        layers: list[nn.Module] = [
            ConvBnRelu(3, channels[0] // 2, stride=2),
            ConvBnRelu(channels[0] // 2, channels[0], stride=2),
        ]
        for in_channels, out_channels, depth in zip(channels, channels[1:], _DEPTHS[name], strict=False):
            layers.append(_Block(in_channels, out_channels, 2))
            layers += [_Block(out_channels, out_channels, 1) for _ in range(depth - 1)]
        self.features = nn.Sequential(*layers)
        self._ends = _ends(name)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Features:
        maps: list[Tensor] = []
        x = image
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place + 1 in self._ends:
                maps.append(x)
        return cast(Features, tuple(maps))


def layouts_of(name: str) -> tuple[dict[str, str], ...]:
    """Prefixes of names in the files of others, each with ours: STDC-Seg's, PaddleSeg's and mmsegmentation's."""
    return {"cp.backbone.": ""}, {"backbone.": ""}, _mmseg(name)


def _mmseg(name: str) -> dict[str, str]:
    """mmsegmentation counts blocks within their stages, and calls layers otherwise."""
    blocks = [f"{stage}.{n}" for stage, depth in enumerate(_DEPTHS[name], 2) for n in range(depth)]
    names = {}
    for place, theirs in enumerate(("0", "1", *blocks)):
        names[f"stages.{theirs}."] = ours = f"features.{place}."
        names[f"stages.{theirs}.layers."] = f"{ours}conv_list."
        names[f"stages.{theirs}.downsample.conv."] = f"{ours}avd_layer.0."
        names[f"stages.{theirs}.downsample.bn."] = f"{ours}avd_layer.1."
    return names


def _ends(name: str) -> tuple[int, ...]:
    """Layers that lead to each of the four maps, counted from the picture."""
    ends = [2]
    for depth in _DEPTHS[name]:
        ends.append(ends[-1] + depth)
    return tuple(ends)


def stages_of(name: str) -> tuple[tuple[str, ...], ...]:
    """Prefixes of the layers that lead to each map from the one before."""
    ends = _ends(name)
    return tuple(
        tuple(f"features.{place}." for place in range(first, end)) for first, end in zip((0, *ends), ends, strict=False)
    )
