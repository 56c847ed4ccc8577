"""FCN-8s on VGG-16: class scores at 1/32, 1/16 and 1/8 of the input, added from coarse to fine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from torch import Tensor, nn

from rtda_training.models.backbones import BackboneKind, build_backbone
from rtda_training.models.backbones.vgg import HIDDEN, VGG16
from rtda_training.models.blocks import full_size, upsampled
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput

__all__ = ["FCN8s"]

_SCORE_STD = 0.01  # as DeepLab's; the paper starts at zero, where no gradient reaches the backbone in the first step


class Scores(nn.Module):
    """The three classifiers of FCN-8s and their fusion.

    Upsampling is bilinear and fixed, which is what the authors' networks keep to: their deconvolutions are set to
    bilinear and their learning rate to zero.
    """

    def __init__(self, channels: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.pool3, self.pool4, self.fc7 = (nn.Conv2d(width, num_classes, 1) for width in channels)
        for layer in (self.pool3, self.pool4, self.fc7):
            nn.init.normal_(layer.weight, std=_SCORE_STD)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, pool3: Tensor, pool4: Tensor, fc7: Tensor) -> Tensor:
        x16 = upsampled(self.fc7(fc7), 2) + self.pool4(pool4)  # (N, C, H/16, W/16)
        x8: Tensor = upsampled(x16, 2) + self.pool3(pool3)  # (N, C, H/8, W/8)
        return x8


class FCN8s(SegmentationNetwork):
    """FCN-8s of Long et al. on VGG-16, the second network of the adaptation papers.

    Parameters for 19 classes: 134,353,017. No batch norm, so that a batch of one picture is fine.

    Every layer is padded so that its map is exactly 1/2, 1/4, ... of the input. The original pads the picture by 100
    pixels instead, runs fc6 unpadded and crops the scores back. So the outermost 96 pixels are judged there by what
    the network makes of a frame of mean colour, here by zeros beside the last map; and its pooling windows begin 3
    pixels earlier than ours.

    Args:
        num_classes: Channels of the logits.
        hidden: Channels of fc6 and fc7; see ``VGG16``.
        backbone: ``"vgg16"``.

    Raises:
        ConfigError: If a number is not positive.

    Source: Long, Shelhamer and Darrell, Fully Convolutional Networks (CVPR 2015; TPAMI 2017).
    """

    NAME = "FCN8s"
    AUX_WEIGHTS = ()
    SIZE_MULTIPLE = 32
    BACKBONE = "vgg16"
    OPTIONS: ClassVar[Mapping[str, int]] = {"hidden": HIDDEN}

    backbone: VGG16

    def __init__(self, num_classes: int = 19, hidden: int = HIDDEN, backbone: str = "vgg16") -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone)
        self.backbone = cast(VGG16, build_backbone(self.settings["backbone"], hidden=hidden))
        _, pool3, pool4, _ = self.backbone.channels
        self.head = Scores((pool3, pool4, hidden), num_classes)
        self.aux_heads = nn.ModuleList()

    @classmethod
    def takes(cls, kind: BackboneKind) -> bool:
        """A VGG-16 alone: the coarsest scores are of its hidden layers."""
        return kind.build is VGG16

    @property
    def architecture(self) -> dict[str, str | int]:
        """What a spec's provenance says; ``hidden`` only where it is not the published 4096."""
        narrow = {} if self.backbone.hidden == HIDDEN else {"hidden": self.backbone.hidden}
        return {**super().architecture, **narrow}

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it; ``aux`` changes nothing, for there are no auxiliary heads."""
        self._check(image)
        features = self.backbone(image)
        coarse = self.head(features[1], features[2], self.backbone.fc7(features[3]))
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, (), features)

    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode."""
        return _FcnView(self)


class _FcnView(DeployView):
    backbone: VGG16
    head: Scores

    def _coarse(self, image: Tensor) -> Tensor:
        _, pool3, pool4, pool5 = self.backbone(image)
        coarse: Tensor = self.head(pool3, pool4, self.backbone.fc7(pool5))
        return coarse
