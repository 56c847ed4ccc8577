"""A backbone of two branches: what is there, from 1/16 to 1/64 of the input, and where it is, at 1/8 all along.

The shape that DDRNet and GCNet share; their blocks differ. Names of layers are ours. Whoever has a file under the
published names has its row of ``BACKBONES`` translate them (``layouts``).

Source: Hong et al., Deep Dual-resolution Networks (arXiv 2101.06085), Figure 4 and Table 1.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.backbones.base import Backbone, Channels, Features
from rtda_training.models.blocks import ConvBn, ConvBnRelu, upsampled

__all__ = ["IGNORED_KEYS", "STAGES", "Branches", "TwoBranchBackbone", "TwoBranchParts"]

IGNORED_KEYS = ("spp.",)  # the pyramid, which is the network's and not the backbone's here
STAGES = (
    ("stem.0.",),
    ("stem.1.",),
    ("semantic.0.", "detail.0.", "compress.0.", "down.0."),
    ("semantic.1.", "detail.1.", "compress.1.", "down.1.", "semantic.2.", "detail.2."),
)


class Branches(NamedTuple):
    """What the two branches give.

    Attributes:
        features: (N, C, H/4, W/4) and 1/8 of the common stem, 1/16 and 1/32 of the semantic branch; rectified.
        tap: (N, C8, H/8, W/8) of the detail branch after the first exchange: what an auxiliary head reads.
        detail: (N, 2 * C8, H/8, W/8), the end of the detail branch.
        context: (N, 2 * C32, H/64, W/64), the end of the semantic branch.
    """

    features: Features
    tap: Tensor
    detail: Tensor
    context: Tensor


class TwoBranchParts(NamedTuple):
    """What one such network is made of.

    Attributes:
        stem: Pictures to the map at 1/4, and that to the one at 1/8.
        semantic: To 1/16, 1/32 and 1/64.
        detail: Three times at 1/8; the last gives twice the channels.
    """

    stem: tuple[nn.Sequential, nn.Sequential]
    semantic: tuple[nn.Sequential, nn.Sequential, nn.Sequential]
    detail: tuple[nn.Sequential, nn.Sequential, nn.Sequential]


class TwoBranchBackbone(Backbone):
    """Two branches that give each other their maps twice, before the ReLU of both.

    Args:
        name: Its key in ``BACKBONES``.
        channels: Of the maps at 1/4, 1/8, 1/16 and 1/32. The detail branch has those of 1/8.
        output_stride: 32, of the last of the four maps; the semantic branch ends at 64.
        parts: Its blocks.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int, parts: TwoBranchParts) -> None:
        super().__init__(name, channels, output_stride)
        _, at8, at16, at32 = channels
        self.stem = nn.ModuleList(parts.stem)
        self.semantic = nn.ModuleList(parts.semantic)
        self.detail = nn.ModuleList(parts.detail)
        self.compress = nn.ModuleList([ConvBn(at16, at8, 1), ConvBn(at32, at8, 1)])
        twice = nn.Sequential(ConvBnRelu(at8, at16, stride=2), ConvBn(at16, at32, stride=2))
        self.down = nn.ModuleList([ConvBn(at8, at16, stride=2), twice])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Features:
        """The four maps; everything runs, so that all batch norms can be measured by it."""
        return self.branches(image).features

    def branches(self, image: Tensor) -> Branches:
        """float32 (N, 3, H, W), sides in multiples of 64, to what both branches give."""
        at4 = F.relu(self.stem[0](image))
        at8 = F.relu(self.stem[1](at4))
        semantic, tap = self._exchanged(0, self.semantic[0](at8), self.detail[0](at8))
        at16 = F.relu(semantic)
        semantic, detail = self._exchanged(1, self.semantic[1](at16), self.detail[1](F.relu(tap)))
        at32 = F.relu(semantic)
        context = self.semantic[2](at32)  # (N, 2 * C32, H/64, W/64)
        detail = self.detail[2](F.relu(detail))  # (N, 2 * C8, H/8, W/8)
        return Branches((at4, at8, at16, at32), tap, detail, context)

    def _exchanged(self, place: int, semantic: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """Each branch and what the other tells it; both tell what they were before."""
        told = upsampled(self.compress[place](F.relu(semantic)), 2 ** (place + 1))
        return semantic + self.down[place](F.relu(detail)), detail + told
