"""DeepLab-v2: a dilated ResNet at 1/8 of the input and four parallel dilated classifiers, as adaptation papers use it.

Without DeepLab's multi-scale inputs and CRF, which those papers leave out, and with an auxiliary classifier on layer3.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtda_training.models.backbones import Backbone, build_backbone
from rtda_training.models.blocks import full_size
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput

__all__ = ["DeepLabV2"]

_RATES = (6, 12, 18, 24)  # ASPP-L of the paper
_CLASSIFIER_STD = 0.01  # DeepLab's own start of its last layers


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling: the sum of four 3x3 classifiers that see 13 to 49 cells of the map."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate) for rate in _RATES
        )
        for parameter in self.branches.parameters():
            if parameter.ndim == 4:
                nn.init.normal_(parameter, std=_CLASSIFIER_STD)
            else:
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        total: Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class DeepLabV2(SegmentationNetwork):
    """DeepLab-v2 (ResNet, ASPP) at output stride 8, with the auxiliary head of multi-level adaptation.

    Parameters at inference for 19 classes: 43,901,068 (ResNet-101); 700,492 more in training. Coarse logits are exactly
    H/8 x W/8: the published code's pooling rounds up and gives one row and column more.

    A batch of one picture trains, though its batch norms then see one picture; the adaptation papers freeze them.

    Args:
        backbone: ``"resnet101"``, or ``"resnet18"`` for small machines, which no paper measured.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown or ``num_classes`` is not positive.

    Source: Chen et al., DeepLab (TPAMI 2018), section 3; auxiliary head: Tsai et al., AdaptSegNet (CVPR 2018),
        multi-level adaptation, weight 0.1; strides and features: PFR, section 3.
    """

    NAME = "DeepLab-v2"
    AUX_WEIGHTS = (0.1,)
    SIZE_MULTIPLE = 8
    BACKBONE = "resnet101"
    BACKBONE_STRIDE = OUTPUT_STRIDE

    def __init__(self, backbone: str = "resnet101", num_classes: int = 19) -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone)
        self.backbone = build_backbone(self.settings["backbone"], self.BACKBONE_STRIDE)
        self.head = Aspp(self.backbone.channels[3], num_classes)
        self.aux_heads = nn.ModuleList([Aspp(self.backbone.channels[2], num_classes)])

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it; see ``SegmentationNetwork.forward``."""
        self._check(image)
        features = self.backbone(image)
        coarse = self.head(features[3])  # (N, C, H/8, W/8)
        aux_logits: tuple[Tensor, ...] = ()
        if self._wants_aux(aux):
            aux_logits = tuple(full_size(head(features[2]), OUTPUT_STRIDE) for head in self.aux_heads)
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, aux_logits, features)

    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode, without the auxiliary head."""
        return _DeepLabView(self)


class _DeepLabView(DeployView):
    backbone: Backbone
    head: Aspp

    def _coarse(self, image: Tensor) -> Tensor:
        coarse: Tensor = self.head(self.backbone(image)[3])
        return coarse
