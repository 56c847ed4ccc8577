"""The table of networks, and networks by name: what a plan asks for, and what a checkpoint's provenance says.

A network is one file, a subclass of ``SegmentationNetwork``, and one row here. Its class says what can be set of it;
plans, ``--set``, messages, pages and checkpoints ask the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_training.models.bisenet import BiSeNet
from rtda_training.models.ddrnet import DDRNet
from rtda_training.models.deeplab import DeepLabV2
from rtda_training.models.fcn8s import FCN8s
from rtda_training.models.gcnet import GCNet
from rtda_training.models.network import SegmentationNetwork
from rtda_training.models.ppliteseg import PPLiteSeg

__all__ = ["NETWORKS", "build_network", "network_class", "network_settings"]

NETWORKS: dict[str, type[SegmentationNetwork]] = {
    "bisenet": BiSeNet,
    "deeplab-v2": DeepLabV2,
    "fcn8s": FCN8s,
    "gcnet": GCNet,
    "ddrnet": DDRNet,
    "ppliteseg": PPLiteSeg,
}
_UNASKED = "rtda"  # a plan's ``variant`` where none was set


def network_class(network: str) -> type[SegmentationNetwork]:
    """The network of a user's name for it, or of the name in a spec's provenance.

    Raises:
        ConfigError: If there is none of that name.
    """
    for name, found in NETWORKS.items():
        if network in (name, found.NAME):
            return found
    raise ConfigError(f"unknown network {network!r}", hint=f"known: {', '.join(NETWORKS)}")


def network_settings(network: str, backbone: str = "", variant: str = "") -> dict[str, str]:
    """What a plan's words come to, without building anything: each setting that the network has, with its word.

    Args:
        network: A key of ``NETWORKS``.
        backbone: Empty: the network's usual one.
        variant: Empty: the usual one; so is ``"rtda"``, a plan's default, for a network that has no such variant.

    Raises:
        ConfigError: If a name is unknown, or the network has no such backbone or variant; the hint lists the known.
    """
    found = network_class(network)
    if variant == _UNASKED and variant not in found.VARIANTS:
        variant = ""
    return found.checked_settings(backbone=backbone, variant=variant)


def build_network(
    network: str | Mapping[str, Any] = "bisenet", backbone: str = "", variant: str = "", num_classes: int = 19
) -> SegmentationNetwork:
    """A network by name, with the random start that ``torch.manual_seed`` decides.

    ``build_network(model.architecture, num_classes=model.num_classes)`` builds an equal one.

    Args:
        network: A key of ``NETWORKS``; or an architecture as provenance has it, which brings its own settings.
        backbone: See ``network_settings``.
        variant: See ``network_settings``.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown, or the network has no such backbone or variant; the hint lists the known.
    """
    if isinstance(network, Mapping):
        if backbone or variant:
            raise ConfigError("an architecture brings its own backbone and variant", hint="give it alone")
        return _from_architecture(network, num_classes)
    build: Callable[..., SegmentationNetwork] = network_class(network)
    return build(num_classes=num_classes, **network_settings(network, backbone, variant))


def _from_architecture(architecture: Mapping[str, Any], num_classes: int) -> SegmentationNetwork:
    found = network_class(str(architecture.get("name")))
    needed = {"name", *found.known_settings()}
    if not needed <= set(architecture) <= needed | set(found.OPTIONS):
        raise ConfigError(
            f"a {found.NAME} is described by {', '.join(sorted(needed))}, got {', '.join(sorted(architecture))}",
            hint="was it written by a newer rtda-deploy? Upgrade",
        )
    settings: dict[str, Any] = {key: str(architecture[key]) for key in found.known_settings()}
    for key, published in found.OPTIONS.items():
        settings[key] = architecture.get(key, published)
        if not isinstance(settings[key], int):
            raise ConfigError(f"{key} must be a number, got {settings[key]!r}", hint=f"published: {published}")
    build: Callable[..., SegmentationNetwork] = found
    return build(num_classes=num_classes, **settings)
