"""The project's networks with a fortieth of their weights: every layer there, each with few channels.

A ResNet's first stage has a projection that the published one lacks: 64 channels come in, and fewer go out.
What most tests prove does not depend on the width, and processor time does. Tests that count weights, load files of
others or hold the papers' network itself to a limit take ``published_width``. Another process has the published width:
what it is given is an ONNX file, or a checkpoint of its own making.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

from rtda_deploy.optional import available

__all__ = ["narrow_networks", "published_networks"]

_RESNET = (24, 32, 48, 64)
_VGG = ((16, 2), (32, 2), (48, 3), (64, 3), (64, 3))


def narrow_networks() -> None:
    """From here on; nothing where torch is not installed."""
    if available("torch"):
        _set(_RESNET, _VGG)


@contextlib.contextmanager
def published_networks() -> Iterator[None]:
    """The networks as they are."""
    from rtda_training.models.backbones import resnet, vgg

    before = resnet._WIDTHS, vgg._GROUPS
    _set((64, 128, 256, 512), ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)))
    try:
        yield
    finally:
        _set(*before)


def _set(widths: tuple[int, ...], groups: tuple[tuple[int, int], ...]) -> None:
    from rtda_training.models.backbones import resnet, vgg

    resnet._WIDTHS, vgg._GROUPS = widths, groups  # type: ignore[assignment]
    vgg.VGG16.channels = tuple(channels for channels, _ in groups[1:])  # type: ignore[assignment]
