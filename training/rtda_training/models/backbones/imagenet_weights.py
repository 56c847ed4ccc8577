"""ImageNet weights for the backbone, loaded whole or not at all.

Half-loaded weights are this field's classic silent failure: training goes on and ends 5 mIoU lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rtda_deploy.errors import CheckpointError
from rtda_training.models.backbones import BACKBONES, Backbone
from rtda_training.models.network import SegmentationNetwork
from rtda_training.models.state_dicts import difference, read_weights

__all__ = ["BackboneReport", "load_backbone_weights"]

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class BackboneReport:
    """What of a file went into the backbone.

    Attributes:
        matched: Tensors that were loaded, ``num_batches_tracked`` counters not counted.
        total: Tensors the backbone has: 100 for ResNet-18, 520 for ResNet-101, 30 for VGG-16.
        ignored: Names in the file that were left out, as ``BackboneKind.ignored_keys`` says: ImageNet's last layer.
    """

    matched: int
    total: int
    ignored: tuple[str, ...]


def load_backbone_weights(model: SegmentationNetwork | Backbone, path: str | Path) -> BackboneReport:
    """Load a standard ImageNet file (the names it was published with) into the backbone.

    VGG-16's two hidden layers, matrices in the file, become the convolutions that give the same.

    Args:
        model: The network, or its backbone; changed in place, and only if everything fits.
        path: ``.pth`` (a state dict, read with ``weights_only=True``) or ``.safetensors``.

    Raises:
        FileAccessError: If the file cannot be read.
        CheckpointError: If the backbone would not load whole; the message lists the keys.
    """
    backbone = model.backbone if isinstance(model, SegmentationNetwork) else model
    weights = read_weights(path)
    expected = backbone.state_dict()
    ignored = tuple(key for key in weights if key.startswith(BACKBONES[backbone.name].ignored_keys))
    found = {key: _as_convolution(tensor, expected.get(key)) for key, tensor in weights.items() if key not in ignored}
    problem = difference(expected, found)
    if problem:
        raise CheckpointError(
            f"{Path(path).name} does not fit {backbone.name}: {problem}",
            hint=f"give the published ImageNet file of {backbone.name}, or another backbone",
        )
    backbone.load_state_dict(found, strict=False)
    matched = sum(not key.endswith(_COUNTER) for key in found)
    total = sum(not key.endswith(_COUNTER) for key in expected)
    return BackboneReport(matched, total, ignored)


def _as_convolution(matrix: Tensor, kernel: Tensor | None) -> Tensor:
    """A fully connected layer's (out, in * h * w) as the kernel of a convolution over that map; others as they are."""
    if kernel is None or matrix.ndim != 2 or kernel.ndim != 4 or matrix.numel() != kernel.numel():
        return matrix
    return matrix.reshape(kernel.shape) if matrix.shape[0] == kernel.shape[0] else matrix
