"""ResNet-18 and ResNet-101 without a classifier, under torchvision's parameter names.

The names are a contract: a standard ImageNet file loads as it is (``load_backbone_weights``).

Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016); dilation instead of stride: Chen et al.,
DeepLab (TPAMI 2018); stride on the 3x3 convolution of a bottleneck ("v1.5"), as in torchvision, whose ImageNet files
everybody uses.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from rtda_training.models.backbones.base import Backbone, Channels, Features

__all__ = ["STAGES", "ResNet"]

STAGES = (("conv1.", "bn1.", "layer1."), ("layer2.",), ("layer3.",), ("layer4.",))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18); ``ends_in_relu``: whether the sum is rectified."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, ends_in_relu: bool = True) -> None:
        super().__init__()
        self.ends_in_relu = ends_in_relu
        self.conv1 = _conv3x3(in_channels, width, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width, 1, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        summed: Tensor = out + shortcut
        return self.relu(summed) if self.ends_in_relu else summed


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-101); ``ends_in_relu``: whether the sum is rectified."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, ends_in_relu: bool = True) -> None:
        super().__init__()
        self.ends_in_relu = ends_in_relu
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        summed: Tensor = out + shortcut
        return self.relu(summed) if self.ends_in_relu else summed


class _Layout(NamedTuple):
    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]


_LAYOUTS = {
    "resnet18": _Layout(BasicBlock, (2, 2, 2, 2)),
    "resnet101": _Layout(Bottleneck, (3, 4, 23, 3)),
}
_STEM = 64  # channels before layer1
# Stride and dilation of layer1 .. layer4 by output stride. A stage that keeps the map's size spreads its kernels
# instead, all of its blocks alike as in DeepLab (torchvision's dilated ResNets leave each first block behind).
_STAGES = {
    32: ((1, 1), (2, 1), (2, 1), (2, 1)),
    8: ((1, 1), (2, 1), (1, 2), (1, 4)),
}


class ResNet(Backbone):
    """The four stages of a ResNet, at strides 4, 8, 16 and 32, or 4, 8, 8 and 8.

    Args:
        name: ``"resnet18"`` or ``"resnet101"``.
        channels: Of the four outputs: 64/128/256/512 (18) or 256/512/1024/2048 (101).
        output_stride: Of layer4, 32 or 8. 8 keeps layer3 and layer4 at layer2's size, with dilations 2 and 4; the
            weights, and so the files that fit, are the same.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int) -> None:
        super().__init__(name, channels, output_stride)
        block, depths = _LAYOUTS[name]
        self.conv1 = nn.Conv2d(3, _STEM, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = (_STEM, *channels[:3])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(block, depth, in_channels, out_channels // block.expansion, *step)
            for depth, in_channels, out_channels, step in zip(
                depths, inputs, channels, _STAGES[output_stride], strict=True
            )
        )
        self._initialise()

    def forward(self, image: Tensor) -> Features:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))  # (N, 64, H/4, W/4)
        stage1 = self.layer1(x)
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        stage4 = self.layer4(stage3)
        return stage1, stage2, stage3, stage4

    def _initialise(self) -> None:
        """Kaiming, fan out, as torchvision; batch norms already start as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(
    block: type[BasicBlock] | type[Bottleneck], depth: int, in_channels: int, width: int, stride: int, dilation: int
) -> nn.Sequential:
    first = block(in_channels, width, stride, dilation)
    rest = (block(width * block.expansion, width, 1, dilation) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block whose output has another shape than its input; None where it has the same."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
