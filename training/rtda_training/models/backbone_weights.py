"""ImageNet weights into a backbone: whole or not at all, or those stages that were asked for, whole.

Half-loaded weights are this field's classic silent failure: training goes on and ends 5 mIoU lower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rtda_deploy.errors import CheckpointError, ConfigError
from rtda_deploy.optional import require
from rtda_training.models.backbones import BACKBONES, Backbone, build_backbone
from rtda_training.models.network import SegmentationNetwork
from rtda_training.models.state_dicts import difference, read_weights, refuse_broken_numbers, renamed, with_zeros

__all__ = ["PACKAGED", "BackboneReport", "load_backbone_weights"]

PACKAGED = "imagenet"  # the word for weights that a package brings
_COUNTER = "num_batches_tracked"
_ALIKE = 0.9  # of a backbone's tensors in a file, from which on the file is taken for one of that backbone


@dataclass(frozen=True)
class BackboneReport:
    """What of a file went into the backbone.

    Attributes:
        matched: Tensors that were loaded, ``num_batches_tracked`` counters not counted.
        total: Tensors the backbone has: 100 for ResNet-18, 520 for ResNet-101, 30 for VGG-16, 245 for
            EfficientNet-Lite0, 212 for DDRNet-23-slim, 1035 for GCNet.
        ignored: Names in the file that were left out: ImageNet's last layer (``BackboneKind.ignored_keys``), and what
            belongs to later stages than were asked for.
        random: Layers that keep their random start, as prefixes of names; empty: none.
    """

    matched: int
    total: int
    ignored: tuple[str, ...]
    random: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people: how many tensors, and what starts at random."""
        found = f"{self.matched} of {self.total} tensors"
        if not self.random:
            return found
        layers = ", ".join(prefix.removesuffix(".") for prefix in self.random)
        return f"{found}; the other {self.total - self.matched} start at random: {layers}"


def load_backbone_weights(
    model: SegmentationNetwork | Backbone, path: str | Path, *, stages: int = 0
) -> BackboneReport:
    """Load a standard ImageNet file (the names it was published with) into the backbone.

    VGG-16's two hidden layers, matrices in the file, become the convolutions that give the same.

    Args:
        model: The network, or its backbone; changed in place, and only if everything fits.
        path: ``.pth`` (a state dict, read with ``weights_only=True``), ``.npz`` (without pickle) or ``.safetensors``;
            or ``"imagenet"``, for a backbone whose weights a package of the extra ``training`` brings.
        stages: Load the layers up to the first, second, third or fourth map, all of them, and leave the later ones as
            they are; 0: all or nothing.

    Raises:
        FileAccessError: If the file cannot be read.
        CheckpointError: If the backbone, or a stage that was asked for, would not load whole; the message lists the
            keys. Or if a weight is NaN or infinite.
        ConfigError: If no package brings weights of this backbone, or it has no such stages.
        MissingPackageError: If the package is not installed.
    """
    backbone = model.backbone if isinstance(model, SegmentationNetwork) else model
    kind = BACKBONES[backbone.name]
    later = _later_layers(backbone.name, stages)
    file = _packaged(backbone.name) if str(path) == PACKAGED else Path(path)
    whole = backbone.state_dict()
    given = read_weights(file)
    weights = _under_our_names(given, kind.layouts, whole)
    expected = {key: tensor for key, tensor in whole.items() if not key.startswith(later)}
    ignored = tuple(key for key in weights if key.startswith((*kind.ignored_keys, *later)))
    found = {key: _as_convolution(tensor, expected.get(key)) for key, tensor in weights.items() if key not in ignored}
    found = with_zeros(found, expected, kind.zeros)
    problem = difference(expected, found)
    if problem:
        raise CheckpointError(
            f"{file.name} does not fit {_what(backbone.name, stages)}: {problem}",
            hint=_other_file(model, backbone.name, given) or _hint(backbone.name, stages, whole, weights),
        )
    refuse_broken_numbers(found, file.name)
    backbone.load_state_dict(found, strict=False)
    matched = sum(not key.endswith(_COUNTER) for key in found)
    return BackboneReport(matched, sum(not key.endswith(_COUNTER) for key in whole), ignored, later)


def _later_layers(name: str, stages: int) -> tuple[str, ...]:
    """Prefixes of the layers behind the first ``stages`` maps; none where all are asked for."""
    if not stages:
        return ()
    known = BACKBONES[name].stages
    if not 0 < stages <= len(known):
        raise ConfigError(
            f"{name} has no {stages} stages to load alone",
            hint=f"backbone_stages is 1 to {len(known)}" if known else "leave backbone_stages away: all or nothing",
        )
    return tuple(prefix for layers in known[stages:] for prefix in layers)


def _packaged(name: str) -> Path:
    found = BACKBONES[name].packaged
    if found is None:
        having = ", ".join(other for other, kind in BACKBONES.items() if kind.packaged)
        raise ConfigError(
            f"no package brings ImageNet weights of {name}",
            hint=f"--backbone-weights FILE, or --set backbone= with one that a package has: {having}; or a recipe that "
            "starts at random, such as classmix",
        )
    package = require(found.module, extra="training", purpose=f"for the ImageNet weights of {name}")
    return Path(str(package.__file__)).parent / found.file


def _what(name: str, stages: int) -> str:
    return f"the first {stages} stages of {name}" if stages else name


def _hint(name: str, stages: int, whole: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """The fix; for a file that holds the first stages whole and no more, how to load those."""
    for count in range(len(BACKBONES[name].stages) - 1, 0, -1):
        out = (*_later_layers(name, count), *BACKBONES[name].ignored_keys)
        expected, found = (
            {key: tensor for key, tensor in tensors.items() if not key.startswith(out)} for tensors in (whole, weights)
        )
        if count != stages and not difference(expected, found):
            return f"--backbone-stages {count} loads the first {count}, which it holds; the rest starts at random"
    return f"give the published ImageNet file of {name}, or another backbone"


def _other_file(model: SegmentationNetwork | Backbone, name: str, weights: Mapping[str, Tensor]) -> str:
    """The fix, for a file of another backbone that is known; empty: it is of none."""
    shares: dict[str, float] = {}
    for other, kind in BACKBONES.items():
        if other != name:
            with torch.device("meta"):
                whole = build_backbone(other, kind.output_strides[0]).state_dict()
            found = _under_our_names(weights, kind.layouts, whole)
            fitting = sum(key in found and found[key].shape == tensor.shape for key, tensor in whole.items())
            shares[other] = fitting / sum(not key.endswith(_COUNTER) for key in whole)
    best = max(shares, key=lambda other: shares[other])
    if shares[best] < _ALIKE:
        return ""
    return f"it looks like a file of {best}: {_built_on(best, model)}, or give one of {name}"


def _built_on(backbone: str, model: SegmentationNetwork | Backbone) -> str:
    """What to set so that the network is built on a backbone; another network where this one cannot be."""
    from rtda_training.models.networks import NETWORKS

    if not isinstance(model, SegmentationNetwork) or backbone in model.known_settings()["backbone"]:
        return f"--set backbone={backbone}"
    other = next(name for name, network in NETWORKS.items() if backbone in network.known_settings()["backbone"])
    return f"--set network={other} --set backbone={backbone}, as {model.NAME} has none of it"


def _under_our_names(
    weights: Mapping[str, Tensor], layouts: Iterable[Mapping[str, str]], whole: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """The weights by the layout under which most of them are the backbone's; as they are where that is as good."""
    ways = [weights, *(renamed(weights, names) for names in layouts)]
    return max(ways, key=lambda found: sum(key in whole for key in found))


def _as_convolution(matrix: Tensor, kernel: Tensor | None) -> Tensor:
    """A fully connected layer's (out, in * h * w) as the kernel of a convolution over that map; others as they are."""
    if kernel is None or matrix.ndim != 2 or kernel.ndim != 4 or matrix.numel() != kernel.numel():
        return matrix
    return matrix.reshape(kernel.shape) if matrix.shape[0] == kernel.shape[0] else matrix
