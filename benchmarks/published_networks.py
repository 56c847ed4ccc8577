"""Networks whose speeds others published (``published_speeds.py``), for the count of their layers: no weights."""

from __future__ import annotations

from typing import Tuple

import torch
from torch import Tensor, nn

from rtda_training.models import BiSeNet, build_backbone, build_network
from rtda_training.models.backbones.resnet import Bottleneck


class FullSize(nn.Module):
    """Coarse logits enlarged eight times, as most published engines give them."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(self.view(image), scale_factor=8.0, mode="bilinear", align_corners=False)


class Classes(nn.Module):
    """The class of each pixel, as mmdeploy's engines give it."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        classes: Tensor = self.view(image).argmax(1, keepdim=True)
        return classes


class FcnResNet18(nn.Module):
    """ResNet-18 of stride 32 and torchvision's FCN head, its coarse grid not enlarged, as jetson-inference runs it."""

    def __init__(self, num_classes: int = 21) -> None:
        super().__init__()
        self.backbone = build_backbone("resnet18")
        self.head = nn.Sequential(
            nn.Conv2d(512, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(image)[3])
        return logits


class Classifier(nn.Module):
    """A backbone's last map, averaged, and one matrix: a network of ImageNet's 1000 classes."""

    def __init__(self, last_map: nn.Module, channels: int) -> None:
        super().__init__()
        self.last_map = last_map
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.pool(self.last_map(image)).flatten(1))
        return scores


class LastMap(nn.Module):
    """The coarsest map of a backbone of ours."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = build_backbone(name)

    def forward(self, image: Tensor) -> Tensor:
        last: Tensor = self.backbone(image)[3]
        return last


def _stem(deep: bool) -> nn.Sequential:
    """A 7x7 convolution of stride 2, or, in mmsegmentation's ResNetV1c, three of 3x3; then the pooling."""
    layers = [(3, 32, 3, 2), (32, 32, 3, 1), (32, 64, 3, 1)] if deep else [(3, 64, 7, 2)]
    parts = [
        part
        for i, o, kernel, stride in layers
        for part in (nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(o), nn.ReLU())
    ]
    return nn.Sequential(*parts, nn.MaxPool2d(3, 2, 1))


def resnet50(deep_stem: bool = False, dilated: bool = False) -> nn.Sequential:
    """ResNet-50's convolutions, at stride 32; ``dilated``: at stride 8, with dilations 2 and 4 in the last stages."""
    steps = ((1, 1), (2, 1), (1, 2), (1, 4)) if dilated else ((1, 1), (2, 1), (2, 1), (2, 1))
    blocks, channels = [], 64
    for width, depth, (stride, dilation) in zip((64, 128, 256, 512), (3, 4, 6, 3), steps):
        for place in range(depth):
            blocks.append(Bottleneck(channels, width, 1 if place else stride, dilation))
            channels = 4 * width
    return nn.Sequential(_stem(deep_stem), *blocks)


class FcnResNet50D8(nn.Module):
    """mmsegmentation's FCN: a dilated ResNetV1c-50, two convolutions, a third on both their ends side by side."""

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.backbone = resnet50(deep_stem=True, dilated=True)
        self.convs = nn.Sequential(_conv_norm_relu(2048, 512), _conv_norm_relu(512, 512))
        self.conv_cat = _conv_norm_relu(2048 + 512, 512)
        self.classifier = nn.Conv2d(512, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        last = self.backbone(image)
        logits: Tensor = self.classifier(self.conv_cat(torch.cat([last, self.convs(last)], 1)))
        return logits


def _conv_norm_relu(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class NanoSam(nn.Module):
    """NanoSAM's image encoder: ResNet-18 and a neck that gives 256 channels at 1/16 of 1024x1024."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = LastMap("resnet18")
        narrow = [nn.Conv2d(512, 256, 3, padding=1), nn.GELU()]
        same = [part for _ in range(2) for part in (nn.Conv2d(256, 256, 3, padding=1), nn.GELU())]
        wider = [nn.ConvTranspose2d(256, 256, 3, 2, 1, 1), nn.GELU()]
        last = [nn.Conv2d(256, 256, 3, padding=1), nn.GELU(), nn.Conv2d(256, 256, 1)]
        self.neck = nn.Sequential(*narrow, *same, *wider, *last)
        self.position = nn.Parameter(torch.zeros(1, 256, 64, 64))

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.neck(self.backbone(image)) + self.position
        return features


NETWORKS = {
    "BiSeNetV1": lambda: FullSize(BiSeNet("resnet18", "paper").deploy_view()),
    "FCN-ResNet18": FcnResNet18,
    "FCN-ResNet50-D8": lambda: Classes(FullSize(FcnResNet50D8())),
    "NanoSAM-ResNet18": NanoSam,
    "ResNet-18": lambda: Classifier(LastMap("resnet18"), 512),
    "ResNet-50": lambda: Classifier(resnet50(), 2048),
    "PP-LiteSeg-T": lambda: FullSize(build_network("ppliteseg", variant="t").deploy_view()),
    "PP-LiteSeg-B": lambda: FullSize(build_network("ppliteseg", variant="b").deploy_view()),
    "DDRNet-23-slim": lambda: FullSize(build_network("ddrnet").deploy_view()),
    "GCNet-S": lambda: FullSize(build_network("gcnet", variant="s").deploy_view()),
    "BiSeNet R18": lambda: BiSeNet("resnet18", "rtda").deploy_view(),
    "BiSeNet R101": lambda: BiSeNet("resnet101", "rtda").deploy_view(),
}
# Sizes of maps are numbers in their graphs: they are traced at the size that is asked for.
OF_ONE_SIZE: Tuple[str, ...] = ("DDRNet-23-slim", "GCNet-S", "PP-LiteSeg-T", "PP-LiteSeg-B", "NanoSAM-ResNet18")
