"""Networks of two branches: their pyramid, their heads, and how both come together at 1/8 of the input.

Source: Hong et al., Deep Dual-resolution Networks (arXiv 2101.06085), sections 3.2 (DAPPM) and 3.3.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.backbones.two_branches import TwoBranchBackbone
from rtda_training.models.blocks import NormReluConv, full_size, global_average, initialise, upsampled, upsampled_to
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput

__all__ = ["Dappm", "TwoBranchNetwork"]

_POOLS = ((5, 2), (9, 4), (17, 8))  # kernel and stride; padded by half a kernel, zeros counted as the authors do

_HEAD = 64  # channels of the heads


class Dappm(nn.Module):
    """Deep aggregation pyramid pooling: five scales of the coarsest map, each told what the finer ones found."""

    def __init__(self, in_channels: int, branch_channels: int, out_channels: int) -> None:
        super().__init__()
        wide, count = branch_channels, len(_POOLS) + 2
        self.scales = nn.ModuleList(NormReluConv(in_channels, wide) for _ in range(count))
        self.processes = nn.ModuleList(NormReluConv(wide, wide, 3) for _ in range(count - 1))
        self.compression = NormReluConv(wide * count, out_channels)
        self.shortcut = NormReluConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.scales[0](x)]
        for place, process in enumerate(self.processes, start=1):
            maps.append(process(self._scale(place, x) + maps[-1]))
        out: Tensor = self.compression(torch.cat(maps, dim=1)) + self.shortcut(x)
        return out

    def pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel."""
        return tuple(self.scales[-1].children())

    def _scale(self, place: int, x: Tensor) -> Tensor:
        """What the map is at that scale, at the map's size; of the coarsest one value, which broadcasts."""
        if place > len(_POOLS):
            return cast(Tensor, self.scales[place](global_average(x)))
        kernel, stride = _POOLS[place - 1]
        return upsampled_to(self.scales[place](F.avg_pool2d(x, kernel, stride, kernel // 2)), x)


class _Head(nn.Module):
    """3x3 convolution and classifier, each behind its batch norm and ReLU."""

    def __init__(self, in_channels: int, mid_channels: int, num_classes: int) -> None:
        super().__init__()
        self.block = NormReluConv(in_channels, mid_channels, 3)
        self.classifier = NormReluConv(mid_channels, num_classes, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.block(x))
        return out


class TwoBranchNetwork(SegmentationNetwork):
    """A network on a backbone of two branches; what is one such network's own is its class below.

    Its coarsest map is 1/64 of the input. An auxiliary head, weight 0.4, reads the detail branch after the first
    exchange. The pyramid's branches have four times the backbone's channels at 1/4; heads have 64 whatever its width.
    """

    AUX_WEIGHTS = (0.4,)
    SIZE_MULTIPLE = 64

    backbone: TwoBranchBackbone

    def _assemble(self, backbone: TwoBranchBackbone) -> None:
        """Put pyramid and heads behind a backbone."""
        at4, at8, _, at32 = backbone.channels
        self.backbone = backbone
        self.pyramid = Dappm(2 * at32, 4 * at4, 2 * at8)
        self.head = _Head(2 * at8, _HEAD, self.num_classes)
        self.aux_heads = nn.ModuleList([_Head(at8, _HEAD, self.num_classes)])
        for part in (self.pyramid, self.head, self.aux_heads):
            initialise(part, negative_slope=0.0)

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it; see ``SegmentationNetwork.forward``.

        Raises:
            ModelError: Also for one picture in training mode: a batch norm of the pyramid sees one value of it.
        """
        self._check(image)
        found = self.backbone.branches(image)
        coarse = self.head(found.detail + upsampled(self.pyramid(found.context), 8))  # (N, C, H/8, W/8)
        aux_logits: tuple[Tensor, ...] = ()
        if self._wants_aux(aux):
            aux_logits = tuple(full_size(head(found.tap), OUTPUT_STRIDE) for head in self.aux_heads)
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, aux_logits, found.features)

    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode, blocks fused, without auxiliary head."""
        return _TwoBranchView(self)

    def _pooled(self) -> tuple[nn.Module, ...]:
        return self.pyramid.pooled()


class _TwoBranchView(DeployView):
    backbone: TwoBranchBackbone
    pyramid: Dappm
    head: _Head

    def _coarse(self, image: Tensor) -> Tensor:
        found = self.backbone.branches(image)
        coarse: Tensor = self.head(found.detail + upsampled(self.pyramid(found.context), 8))
        return coarse
