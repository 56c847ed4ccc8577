"""The project's networks with a fortieth of their weights: every layer there, each with few channels.

A ResNet's first stage has a projection that the published one lacks: 64 channels come in, and fewer go out.
What most tests prove does not depend on the width, and processor time does. Tests that count weights, load files of
others or hold the papers' network itself to a limit take ``published_width``. Another process has the published width:
what it is given is an ONNX file, or a checkpoint of its own making.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Iterator, Mapping

from rtda_deploy.optional import available

__all__ = ["narrow_networks", "published_networks"]

_CHANNELS = {
    "resnet18": (24, 32, 48, 64),
    "resnet101": (96, 128, 192, 256),
    "vgg16": (32, 48, 64, 64),
    "efficientnet-lite0": (36, 48, 84, 80),
    "stdc1": (8, 32, 48, 64),
    "stdc2": (8, 32, 48, 64),
    "gcnet": (8, 16, 24, 32),
    "ddrnet23-slim": (8, 16, 24, 32),
}
_PUBLISHED = {
    "resnet18": (64, 128, 256, 512),
    "resnet101": (256, 512, 1024, 2048),
    "vgg16": (128, 256, 512, 512),
    "efficientnet-lite0": (144, 240, 672, 1280),
    "stdc1": (64, 256, 512, 1024),
    "stdc2": (64, 256, 512, 1024),
    "gcnet": (32, 64, 128, 256),
    "ddrnet23-slim": (32, 64, 128, 256),
}


def narrow_networks() -> None:
    """From here on; nothing where torch is not installed."""
    if available("torch"):
        _set(_CHANNELS)


@contextlib.contextmanager
def published_networks() -> Iterator[None]:
    """The networks as they are."""
    from rtda_training.models import BACKBONES

    before = {name: kind.channels for name, kind in BACKBONES.items()}
    _set(_PUBLISHED)
    try:
        yield
    finally:
        _set(before)


def _set(channels: Mapping[str, tuple[int, int, int, int]]) -> None:
    from rtda_training.models import BACKBONES

    for name, asked in channels.items():
        BACKBONES[name] = dataclasses.replace(BACKBONES[name], channels=asked)
