"""DDRNet-23-slim's two branches, of residual blocks.

Source: Hong et al., Deep Dual-resolution Networks (arXiv 2101.06085), Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from rtda_training.models.backbones.base import Channels
from rtda_training.models.backbones.resnet import BasicBlock, Bottleneck
from rtda_training.models.backbones.two_branches import TwoBranchBackbone, TwoBranchParts
from rtda_training.models.blocks import ConvBnRelu

__all__ = ["AUTHORS", "MMSEG", "STEM_BIASES", "DdrBackbone"]

STEM_BIASES = ("stem.0.0.conv.bias", "stem.0.1.conv.bias")  # 0 in mmsegmentation's files, which leave them away


class _Narrowing(Bottleneck):
    """A bottleneck whose output has twice its width."""

    expansion = 2


class DdrBackbone(TwoBranchBackbone):
    """DDRNet-23-slim's branches without pyramid and head.

    Args:
        name: ``"ddrnet23-slim"``.
        channels: 32/64/128/256 as published.
        output_stride: 32; see ``TwoBranchBackbone``.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int) -> None:
        at4, at8, at16, at32 = channels
        start = (ConvBnRelu(3, at4, stride=2, bias=True), ConvBnRelu(at4, at4, stride=2, bias=True))
        parts = TwoBranchParts(
            stem=(nn.Sequential(*start, *_pair(at4, at4)), nn.Sequential(*_pair(at4, at8, 2))),
            semantic=(
                nn.Sequential(*_pair(at8, at16, 2)),
                nn.Sequential(*_pair(at16, at32, 2)),
                nn.Sequential(_Narrowing(at32, at32, 2, 1, ends_in_relu=False)),
            ),
            detail=(
                nn.Sequential(*_pair(at8, at8)),
                nn.Sequential(*_pair(at8, at8)),
                nn.Sequential(_Narrowing(at8, at8, 1, 1, ends_in_relu=False)),
            ),
        )
        super().__init__(name, channels, output_stride, parts)


def _pair(in_channels: int, out_channels: int, stride: int = 1) -> tuple[BasicBlock, BasicBlock]:
    last = BasicBlock(out_channels, out_channels, 1, 1, ends_in_relu=False)
    return BasicBlock(in_channels, out_channels, stride, 1), last


def _authors() -> Mapping[str, str]:
    """Prefixes of names in the authors' files, each with ours."""
    names = {"layer1.0.": "stem.0.2.", "layer1.1.": "stem.0.3.", "layer2.": "stem.1."}
    for place, ours in enumerate(("stem.0.0", "stem.0.1")):
        names.update({f"conv1.{3 * place}.": f"{ours}.conv.", f"conv1.{3 * place + 1}.": f"{ours}.bn."})
    for place in range(3):
        names.update({f"layer{place + 3}.": f"semantic.{place}.", f"layer{place + 3}_.": f"detail.{place}."})
    for theirs, ours in (("compression3", "compress.0"), ("compression4", "compress.1"), ("down3", "down.0")):
        names.update({f"{theirs}.0.": f"{ours}.conv.", f"{theirs}.1.": f"{ours}.bn."})
    layers = {"0": "0.conv", "1": "0.bn", "3": "1.conv", "4": "1.bn"}
    return {**names, **{f"down4.{layer}.": f"down.1.{ours}." for layer, ours in layers.items()}}


def _mmseg() -> Mapping[str, str]:
    """Prefixes of names in mmsegmentation's files, whose convolutions and batch norms are one module."""
    names = {"stem.0.": "stem.0.0.", "stem.1.": "stem.0.1.", "compression_1.": "compress.0."}
    names.update({"compression_2.": "compress.1.", "down_1.": "down.0.", "down_2.": "down.1."})
    blocks = {"stem.2.0.": "stem.0.2.", "stem.2.1.": "stem.0.3.", "stem.4.0.": "stem.1.0.", "stem.4.1.": "stem.1.1."}
    for theirs, ours in (("context_branch_layers", "semantic"), ("spatial_branch_layers", "detail")):
        blocks.update({f"{theirs}.{k}.{n}.": f"{ours}.{k}.{n}." for k in range(3) for n in range(2)})
    for theirs, ours in blocks.items():
        names[theirs] = ours
        for n in (1, 2, 3):
            names.update({f"{theirs}conv{n}.conv.": f"{ours}conv{n}.", f"{theirs}conv{n}.bn.": f"{ours}bn{n}."})
    return names


AUTHORS, MMSEG = _authors(), _mmseg()
