"""PP-LiteSeg: STDC, a small pyramid at 1/32, and three fusions on the way back to 1/8 of the input."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.backbones import Backbone, Features, build_backbone
from rtda_training.models.blocks import (
    ConvBn,
    ConvBnRelu,
    full_size,
    global_average,
    initialise,
    upsampled,
    upsampled_to,
)
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput

__all__ = ["PPLiteSeg"]

_BINS = (1, 2, 4)  # cells each way of the pyramid's pooled maps
_PYRAMID = 128  # channels
_AUX = 64  # channels of the auxiliary heads


class _Shape(NamedTuple):
    """What a variant is.

    Attributes:
        backbone: The usual one.
        outputs: Channels of the fusions at 1/8, 1/16 and 1/32.
        head: Channels of the main head.
        attends: Whether a fusion weighs both maps by a map of attention; else it adds them.
        kernel: Of the convolution that a fusion reads the backbone's map by.
    """

    backbone: str
    outputs: tuple[int, int, int]
    head: int
    attends: bool = True
    kernel: int = 3


_SHAPES = {
    "lite": _Shape("stdc1", (32, 64, 128), 32, attends=False, kernel=1),
    "t": _Shape("stdc1", (32, 64, 128), 32),
    "b": _Shape("stdc2", (64, 96, 128), 64),
}


class _Pyramid(nn.Module):
    """Simple pyramid pooling (SPPM): means over 1, 4 and 16 parts of the map, added up at the map's size."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(ConvBnRelu(in_channels, _PYRAMID, 1, bias=True) for _ in _BINS)
        self.out = ConvBnRelu(_PYRAMID, _PYRAMID, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        whole: Tensor = self.stages[0](global_average(x))  # one value, which broadcasts
        for stage, bins in zip(self.stages[1:], _BINS[1:], strict=True):
            whole = whole + upsampled_to(stage(F.adaptive_avg_pool2d(x, bins)), x)
        out: Tensor = self.out(whole)
        return out

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        return tuple(self.stages[0].children())


class _Fusion(nn.Module):
    """Unified attention fusion (UAFM): a fine map of the backbone and the coarser one that comes from below."""

    def __init__(self, fine: int, coarse: int, out_channels: int, shape: _Shape) -> None:
        super().__init__()
        self.fine = ConvBnRelu(fine, coarse, shape.kernel)
        self.attention = nn.Sequential(ConvBnRelu(4, 2), ConvBn(2, 1)) if shape.attends else None
        self.out = ConvBnRelu(coarse, out_channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Both at the finer map's size: (N, C, h, w)."""
        fine = self.fine(fine)
        if self.attention is None:
            out: Tensor = self.out(fine + coarse)
            return out
        seen = [reduced for x in (fine, coarse) for reduced in (x.mean(1, keepdim=True), x.amax(1, keepdim=True))]
        share = self.attention(torch.cat(seen, dim=1)).sigmoid()  # (N, 1, h, w)
        out = self.out(coarse + (fine - coarse) * share)
        return out


class _Head(nn.Module):
    """3x3 convolution and a classifier without a bias."""

    def __init__(self, in_channels: int, mid_channels: int, num_classes: int) -> None:
        super().__init__()
        self.block = ConvBnRelu(in_channels, mid_channels)
        self.classifier = nn.Conv2d(mid_channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.block(x))
        return out


class PPLiteSeg(SegmentationNetwork):
    """PP-LiteSeg of Peng et al., and a lighter one that nobody published.

    Parameters at inference for 19 classes: 8,028,320 (``t`` on STDC-1), 12,234,752 (``b`` on STDC-2), 6,324,096
    (``lite``: ``t`` with 1x1 convolutions in front of the fusions, which add instead of attending). The two auxiliary
    heads, weight 1 each, read the fusions at 1/16 and 1/32.

    Args:
        backbone: Empty: ``"stdc1"``, for ``b`` ``"stdc2"``. Or another of output stride 32.
        variant: ``"lite"``, ``"t"`` or ``"b"``.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown or ``num_classes`` is not positive.

    Source: Peng et al., PP-LiteSeg (arXiv 2204.02681), sections 3.2 (decoder), 3.3 (UAFM) and 3.4 (SPPM).
    """

    NAME = "PP-LiteSeg"
    AUX_WEIGHTS = (1.0, 1.0)
    SIZE_MULTIPLE = 128  # the pyramid divides the map at 1/32 into 4x4 equal parts
    BACKBONE = "stdc1"
    VARIANTS = ("lite", "t", "b")

    def __init__(self, backbone: str = "", variant: str = "lite", num_classes: int = 19) -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone, variant=variant)
        shape = _SHAPES[self.settings["variant"]]
        self.backbone = build_backbone(self.settings["backbone"], self.BACKBONE_STRIDE)
        self.pyramid = _Pyramid(self.backbone.channels[3])
        sides = zip(self.backbone.channels[1:], (*shape.outputs[1:], _PYRAMID), shape.outputs, strict=True)
        self.fusions = nn.ModuleList(_Fusion(fine, coarse, out, shape) for fine, coarse, out in sides)
        self.head = _Head(shape.outputs[0], shape.head, num_classes)
        self.aux_heads = nn.ModuleList(_Head(width, _AUX, num_classes) for width in shape.outputs[1:])
        for part in (self.pyramid, self.fusions, self.head, self.aux_heads):
            initialise(part, negative_slope=0.0)

    @classmethod
    def checked_settings(cls, **words: str) -> dict[str, str]:
        """As every network's; the usual backbone is the variant's."""
        found = super().checked_settings(**words)
        return found if words.get("backbone") else {**found, "backbone": _SHAPES[found["variant"]].backbone}

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it; see ``SegmentationNetwork.forward``.

        Raises:
            ModelError: Also for one picture in training mode: a batch norm of the pyramid sees one value of it.
        """
        self._check(image)
        features = self.backbone(image)
        at8, *coarser = _decoded(self.pyramid, self.fusions, features)
        coarse = self.head(at8)  # (N, C, H/8, W/8)
        aux_logits: tuple[Tensor, ...] = ()
        if self._wants_aux(aux):
            strides = (2 * OUTPUT_STRIDE, 4 * OUTPUT_STRIDE)
            heads = zip(self.aux_heads, coarser, strides, strict=True)
            aux_logits = tuple(full_size(head(x), stride) for head, x, stride in heads)
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, aux_logits, features)

    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode, without auxiliary heads."""
        return _PPLiteSegView(self)

    def _pooled(self) -> tuple[nn.Module, ...]:
        return self.pyramid.pooled()


def _decoded(pyramid: _Pyramid, fusions: nn.ModuleList, features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """What the fusions give at 1/8, 1/16 and 1/32."""
    _, at8, at16, at32 = features
    low = fusions[2](at32, pyramid(at32))
    mid = fusions[1](at16, upsampled(low, 2))
    return fusions[0](at8, upsampled(mid, 2)), mid, low


class _PPLiteSegView(DeployView):
    backbone: Backbone
    pyramid: _Pyramid
    fusions: nn.ModuleList
    head: _Head

    def _coarse(self, image: Tensor) -> Tensor:
        coarse: Tensor = self.head(_decoded(self.pyramid, self.fusions, self.backbone(image))[0])
        return coarse
