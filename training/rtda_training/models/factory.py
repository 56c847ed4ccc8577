"""Networks by name: what a plan asks for, and what a checkpoint's provenance says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_training.models.bisenet import VARIANTS, BiSeNet
from rtda_training.models.deeplab import DeepLabV2
from rtda_training.models.fcn8s import FCN8s
from rtda_training.models.network import SegmentationNetwork

__all__ = ["NETWORKS", "NetworkKind", "build_network", "network_kind"]


@dataclass(frozen=True)
class NetworkKind:
    """One family of networks, for checking a choice without building anything.

    Attributes:
        network: Its class; ``network.NAME`` is in a spec's provenance, ``network.SIZE_MULTIPLE`` on input sizes.
        backbones: Known ones, the usual one first.
        variants: Known ones, the usual one first; empty where there is one shape only.
    """

    network: type[SegmentationNetwork]
    backbones: tuple[str, ...]
    variants: tuple[str, ...] = ()

    @property
    def size_multiple(self) -> int:
        """Height and width of pictures are multiples of it."""
        return self.network.SIZE_MULTIPLE


NETWORKS: Mapping[str, NetworkKind] = {
    "bisenet": NetworkKind(BiSeNet, ("resnet18", "resnet101"), VARIANTS),
    "deeplab-v2": NetworkKind(DeepLabV2, ("resnet101", "resnet18")),
    "fcn8s": NetworkKind(FCN8s, ("vgg16",)),
}
_UNASKED = VARIANTS[0]  # what a plan's ``variant`` is where nobody set it


def network_kind(network: str) -> NetworkKind:
    """The family of a user's name for it, or of the name in a spec's provenance.

    Raises:
        ConfigError: If there is none of that name.
    """
    for name, kind in NETWORKS.items():
        if network in (name, kind.network.NAME):
            return kind
    raise ConfigError(f"unknown network {network!r}", hint=f"known: {', '.join(NETWORKS)}")


def build_network(
    network: str | Mapping[str, Any] = "bisenet", backbone: str = "", variant: str = "", num_classes: int = 19
) -> SegmentationNetwork:
    """A network by name, with the random start that ``torch.manual_seed`` decides.

    ``build_network(model.architecture, num_classes=model.num_classes)`` builds an equal one.

    Args:
        network: ``"bisenet"``, ``"deeplab-v2"`` or ``"fcn8s"``; or an architecture as provenance has it, which brings
            its own backbone and variant.
        backbone: ``"resnet18"``, ``"resnet101"`` or ``"vgg16"``; empty: the network's usual one.
        variant: Of a BiSeNet, ``"rtda"`` or ``"paper"``; empty: ``"rtda"``. Other networks have none, and pass over
            ``"rtda"``, a plan's default.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown, or the network has no such backbone or variant; the hint lists the known.
    """
    if isinstance(network, Mapping):
        return _from_architecture(network, backbone, variant, num_classes)
    kind = network_kind(network)
    backbone = _known(kind, "backbone", backbone, kind.backbones)
    if kind.variants:
        variant = _known(kind, "variant", variant, kind.variants)
    elif variant not in ("", _UNASKED):
        raise ConfigError(
            f"{network} has no variant {variant!r}", hint=f"leave variant away: {network} has one shape only"
        )
    if kind.network is BiSeNet:
        return BiSeNet(backbone, variant, num_classes)
    if kind.network is DeepLabV2:
        return DeepLabV2(backbone, num_classes)
    return FCN8s(num_classes)


def _from_architecture(
    architecture: Mapping[str, Any], backbone: str, variant: str, num_classes: int
) -> SegmentationNetwork:
    if backbone or variant:
        raise ConfigError("an architecture brings its own backbone and variant", hint="give it alone")
    kind = network_kind(str(architecture.get("name")))
    needed = {"name", "backbone", *(("variant",) if kind.variants else ())}
    optional = {"hidden"} if kind.network is FCN8s else set()
    keys = set(architecture)
    if not needed <= keys <= needed | optional:
        raise ConfigError(
            f"a {kind.network.NAME} is described by {', '.join(sorted(needed))}, got {', '.join(sorted(keys))}",
            hint="was it written by a newer rtda-deploy? Upgrade",
        )
    if "hidden" in keys:
        _known(kind, "backbone", str(architecture["backbone"]), kind.backbones)
        hidden = architecture["hidden"]
        if not isinstance(hidden, int):
            raise ConfigError(f"hidden must be a number, got {hidden!r}", hint="VGG-16 has 4096")
        return FCN8s(num_classes, hidden)
    return build_network(
        kind.network.NAME, str(architecture["backbone"]), str(architecture.get("variant", "")), num_classes
    )


def _known(kind: NetworkKind, what: str, name: str, known: tuple[str, ...]) -> str:
    if name and name not in known:
        raise ConfigError(f"{kind.network.NAME} has no {what} {name!r}", hint=f"known: {', '.join(known)}")
    return name or known[0]
