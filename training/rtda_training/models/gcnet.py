"""GCNet: two branches of blocks that are one 3x3 convolution each where the network runs."""

from __future__ import annotations

from typing import cast

from rtda_training.models.backbones import BackboneKind, build_backbone
from rtda_training.models.backbones.gcnet import GcBackbone
from rtda_training.models.two_branches import TwoBranchNetwork

__all__ = ["GCNet"]

_WIDTHS = {"s": 1.0, "w24": 0.75}  # of the backbone's channels


class GCNet(TwoBranchNetwork):
    """GCNet-S of Yang et al., and a thinner one that nobody published.

    Parameters at inference for 19 classes: 9,169,971 (``s``) and 5,175,355 (``w24``), fused; 20,657,075 of ``s`` learn,
    and 38,355 of its auxiliary head. Blocks are fused in ``deploy_view``, which is what is exported, compared,
    benchmarked and counted; a checkpoint, an averaged teacher and batch norms that are measured again are unfused.

    Args:
        backbone: ``"gcnet"``.
        variant: ``"s"``, or ``"w24"`` with three quarters of its channels: 24 at 1/4 of the input.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown or ``num_classes`` is not positive.

    Source: Yang et al., GCNet (CVPR 2025); weight of the auxiliary head as there.
    """

    NAME = "GCNet"
    BACKBONE = "gcnet"
    VARIANTS = ("s", "w24")

    def __init__(self, backbone: str = "gcnet", variant: str = "s", num_classes: int = 19) -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone, variant=variant)
        width = _WIDTHS[self.settings["variant"]]
        self._assemble(cast(GcBackbone, build_backbone(self.settings["backbone"], width=width)))

    @classmethod
    def takes(cls, kind: BackboneKind) -> bool:
        """Its own backbone alone."""
        return kind.build is GcBackbone
