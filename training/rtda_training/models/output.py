"""The one structured answer of every segmentation network, in training and in evaluation alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["SegOutput"]


class SegOutput(NamedTuple):
    """What a segmentation network gives for a batch of pictures.

    The same type in ``train()`` and ``eval()`` mode: only ``aux`` is empty in the latter. A named tuple and not a
    frozen dataclass because Fabric's mixed precision and DDP walk through it, and Fabric refuses frozen dataclasses.

    Attributes:
        logits: float (N, C, H, W), at the size of the input.
        coarse: float (N, C, H/8, W/8), what the deployed network gives; bilinear x8 of it (``align_corners=False``)
            *is* ``logits``.
        aux: float (N, C, H, W) logits of the auxiliary heads: two of a BiSeNet (stride 16 first), one of a DeepLab-v2
            (layer3's), none of an FCN-8s; ``()`` where they did not run.
        features: Outputs of the backbone's four stages, layer1 .. layer4 or pool2 .. pool5, at the network's
            ``FEATURE_STRIDES``.
    """

    logits: Tensor
    coarse: Tensor
    aux: tuple[Tensor, ...]
    features: tuple[Tensor, Tensor, Tensor, Tensor]
