"""What a backbone is: pictures in, maps of four scales out; and what a row of ``BACKBONES`` says of one."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Backbone", "BackboneKind", "Channels", "Features", "PackagedWeights"]

Channels = tuple[int, int, int, int]
Features = tuple[Tensor, Tensor, Tensor, Tensor]


class Backbone(nn.Module, abc.ABC):
    """The part of a network that ImageNet weights are loaded into, under the parameter names of the published file.

    Args:
        name: Its key in ``BACKBONES``.
        channels: Of the four maps.
        output_stride: Input pixels per value of the last map.
    """

    def __init__(self, name: str, channels: Channels, output_stride: int) -> None:
        super().__init__()
        self.name, self.channels, self.output_stride = name, channels, output_stride

    @abc.abstractmethod
    def forward(self, image: Tensor) -> Features:
        """float32 (N, 3, H, W) -> maps at strides 4, 8, 16 and 32; none is coarser than ``output_stride``."""


class PackagedWeights(NamedTuple):
    """ImageNet weights that a package of the extra ``training`` brings: ``--backbone-weights imagenet``.

    Attributes:
        module: Import name of the package.
        file: Of the weights, from the package's folder.
        licence: Of the weights, as the package states it.
    """

    module: str
    file: str
    licence: str = "unknown"


@dataclass(frozen=True)
class BackboneKind:
    """A row of ``BACKBONES``: all that networks, messages and weight files need to know before one is built.

    Attributes:
        build: Its class; called with the name, the channels, the output stride, and options of its own.
        channels: Of the four maps, as published. With others a narrower or wider backbone is built, which no ImageNet
            file fits: tests take a few channels.
        output_strides: That its last map can have.
        ignored_keys: Prefixes of names in an ImageNet file that have no use here, such as the classifier.
        stages: Of each map, the prefixes of the layers that lead to it from the map before; what
            ``load_backbone_weights(stages=...)`` counts. Empty: its weights load whole or not at all.
        packaged: Where its ImageNet weights are installed from; None: the user brings a file.
        layouts: Other names that its files have: of each the prefixes, and what takes their place; the longest that
            fits wins.
        zeros: Tensors that some of its files leave away because they are 0 there.
        own_layers: Whether it has layers that take no part in the four maps. Only a network that uses them is built on
            it: elsewhere they would be weights without a gradient.
    """

    build: Callable[..., Backbone]
    channels: Channels
    output_strides: tuple[int, ...] = (32,)
    ignored_keys: tuple[str, ...] = ()
    stages: tuple[tuple[str, ...], ...] = ()
    packaged: PackagedWeights | None = None
    layouts: tuple[Mapping[str, str], ...] = ()
    zeros: tuple[str, ...] = ()
    own_layers: bool = False
