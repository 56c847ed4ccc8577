"""GCNet's two branches, of blocks that are four paths while they learn and one 3x3 convolution where they run.

Source: Yang et al., GCNet: Rethinking Real-Time Semantic Segmentation (CVPR 2025); RepVGG's idea (Ding et al., 2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtda_training.models.backbones.base import Channels
from rtda_training.models.backbones.two_branches import TwoBranchBackbone, TwoBranchParts
from rtda_training.models.blocks import ConvBn, ConvBnRelu, Reparameterised

__all__ = ["FUSED_KEY", "LAYOUTS", "GcBackbone", "GcBlock"]

FUSED_KEY = ".reparam_3x3."  # of a fused block in files of the authors' code
_STEM_BLOCKS = 6  # layers of the published stem at 1/4; the four others are at 1/8
_DEPTHS = (5, 5, 2)  # blocks of the semantic branch at 1/16, 1/32 and 1/64
_DETAIL_DEPTHS = (4, 4, 2)


class _Path(nn.Module):
    """A convolution and a 1x1 convolution, each with its batch norm and no non-linearity between them."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBn(in_channels, out_channels, kernel_size, stride)
        self.conv2 = ConvBn(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out

    def as_one(self) -> tuple[Tensor, Tensor]:
        """Kernel (O, I, k, k) and bias (O,) of the one convolution that it is, float64."""
        first, second = _folded(self.conv1), _folded(self.conv2)
        mix = second[0][:, :, 0, 0]
        return torch.einsum("om,mikl->oikl", mix, first[0]), mix @ first[1] + second[1]


class GcBlock(Reparameterised):
    """Two 3x3 paths, a 1x1 path and, where the shape stays, a batch norm alone; their sum, and a ReLU unless told.

    The only padding is that of the first convolution of a path, in front of every batch norm, so that the sum is one
    3x3 convolution with a bias exactly, up to the borders of the map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, ends_in_relu: bool = True) -> None:
        super().__init__()
        self.path_3x3_1 = _Path(in_channels, out_channels, 3, stride)
        self.path_3x3_2 = _Path(in_channels, out_channels, 3, stride)
        self.path_1x1 = _Path(in_channels, out_channels, 1, stride)
        keeps = stride == 1 and in_channels == out_channels
        self.path_residual = nn.BatchNorm2d(in_channels) if keeps else None
        self.fused: nn.Conv2d | None = None
        self._ends_in_relu = ends_in_relu

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._sum(x) if self.fused is None else self.fused(x)
        return F.relu(out, inplace=True) if self._ends_in_relu else out

    def fuse(self) -> None:
        if self.fused is not None:
            return
        conv = self.path_3x3_1.conv1.conv
        like, shape = conv.weight, (conv.in_channels, conv.out_channels, 3, conv.stride[0])
        fused = nn.Conv2d(*shape, padding=1, device="meta", dtype=like.dtype).requires_grad_(False)
        fused.to_empty(device=like.device)  # nothing random is drawn for it
        if not like.is_meta:  # else there are shapes alone, and they are counted
            for place, value in zip((fused.weight, fused.bias), self._as_one(), strict=True):
                assert place is not None
                place.copy_(value)
        del self.path_3x3_1, self.path_3x3_2, self.path_1x1
        self.path_residual = None
        self.fused = fused.train(self.training)

    def _sum(self, x: Tensor) -> Tensor:
        out: Tensor = self.path_3x3_1(x) + self.path_3x3_2(x) + self.path_1x1(x)
        return out if self.path_residual is None else out + self.path_residual(x)

    @torch.no_grad()
    def _as_one(self) -> tuple[Tensor, Tensor]:
        one, two, point = (path.as_one() for path in (self.path_3x3_1, self.path_3x3_2, self.path_1x1))
        kernel, bias = one[0] + two[0] + F.pad(point[0], (1, 1, 1, 1)), one[1] + two[1] + point[1]
        if self.path_residual is not None:
            scale, shift = _scale_and_shift(self.path_residual)
            kernel = kernel + F.pad(torch.diag(scale)[:, :, None, None], (1, 1, 1, 1))
            bias = bias + shift
        return kernel, bias


def _folded(layer: ConvBn) -> tuple[Tensor, Tensor]:
    scale, shift = _scale_and_shift(layer.bn)
    return layer.conv.weight.double() * scale[:, None, None, None], shift


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm is in evaluation mode; float64 (C,) each."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


class GcBackbone(TwoBranchBackbone):
    """GCNet-S's branches without pyramid and head.

    Args:
        name: ``"gcnet"``.
        channels: 32/64/128/256 as published.
        output_stride: 32; see ``TwoBranchBackbone``.
        width: Share of the channels: 0.75 gives 24/48/96/192.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int, width: float = 1.0) -> None:
        at4, at8, at16, at32 = (round(count * width) for count in channels)
        stem = (
            nn.Sequential(ConvBnRelu(3, at4, stride=2), ConvBnRelu(at4, at4, stride=2), *_blocks(at4, at4, 4)),
            nn.Sequential(*_blocks(at4, at8, 4, stride=2)),
        )
        sides = zip((at8, at16, at32), (at16, at32, 2 * at32), _DEPTHS, strict=True)
        semantic = [nn.Sequential(*_blocks(i, o, depth, 2, last_relu=False)) for i, o, depth in sides]
        sides = zip((at8,) * 3, (at8, at8, 2 * at8), _DETAIL_DEPTHS, strict=True)
        detail = [nn.Sequential(*_blocks(i, o, depth, last_relu=False)) for i, o, depth in sides]
        parts = TwoBranchParts(stem, (semantic[0], semantic[1], semantic[2]), (detail[0], detail[1], detail[2]))
        super().__init__(name, (at4, at8, at16, at32), output_stride, parts)


def _blocks(
    in_channels: int, out_channels: int, depth: int, stride: int = 1, *, last_relu: bool = True
) -> list[GcBlock]:
    first = GcBlock(in_channels, out_channels, stride)
    rest = (GcBlock(out_channels, out_channels, 1, last_relu or place < depth - 1) for place in range(1, depth))
    return [first, *rest]


def _published() -> Mapping[str, str]:
    """Prefixes of names in files of the authors' code (mmsegmentation), each with ours."""
    stem = {f"stem.{n}.": f"stem.{n // _STEM_BLOCKS}.{n % _STEM_BLOCKS}." for n in range(_STEM_BLOCKS + 4)}
    exchange = {
        f"{theirs}_{n + 1}.": f"{ours}.{n}."
        for n in range(2)
        for theirs, ours in (("compression", "compress"), ("down", "down"))
    }
    return {**stem, "semantic_branch_layers.": "semantic.", "detail_branch_layers.": "detail.", **exchange}


LAYOUTS = (_published(),)
