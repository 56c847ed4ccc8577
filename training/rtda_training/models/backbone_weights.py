"""ImageNet weights for the backbone, loaded whole or not at all.

Half-loaded weights are this field's classic silent failure: training goes on and ends 5 mIoU lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtda_deploy.errors import CheckpointError

from .bisenet import BiSeNet
from .resnet import ResNet
from .state_dicts import difference, read_weights

__all__ = ["BackboneReport", "load_backbone_weights"]

_CLASSIFIER = "fc."  # ImageNet's, which a segmentation network has no use for
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class BackboneReport:
    """What of a file went into the backbone.

    Attributes:
        matched: Tensors that were loaded, ``num_batches_tracked`` counters not counted.
        total: Tensors the backbone has: 100 for ResNet-18, 520 for ResNet-101.
        ignored: Names in the file that were left out: the ImageNet classifier.
    """

    matched: int
    total: int
    ignored: tuple[str, ...]


def load_backbone_weights(model: BiSeNet | ResNet, path: str | Path) -> BackboneReport:
    """Load a standard ImageNet file (torchvision's names) into the backbone.

    Args:
        model: The network, or its backbone; changed in place, and only if everything fits.
        path: ``.pth`` (a state dict, read with ``weights_only=True``) or ``.safetensors``.

    Raises:
        FileAccessError: If the file cannot be read.
        CheckpointError: If the backbone would not load whole; the message lists the keys.
    """
    backbone = model.backbone if isinstance(model, BiSeNet) else model
    weights = read_weights(path)
    ignored = tuple(key for key in weights if key.startswith(_CLASSIFIER))
    found = {key: tensor for key, tensor in weights.items() if key not in ignored}
    expected = backbone.state_dict()
    problem = difference(expected, found)
    if problem:
        raise CheckpointError(
            f"{Path(path).name} does not fit {backbone.name}: {problem}",
            hint=f"give torchvision's ImageNet file of {backbone.name}, or another backbone",
        )
    backbone.load_state_dict(found, strict=False)
    matched = sum(not key.endswith(_COUNTER) for key in found)
    total = sum(not key.endswith(_COUNTER) for key in expected)
    return BackboneReport(matched, total, ignored)
