"""DDRNet-23-slim: two branches of residual blocks."""

from __future__ import annotations

from typing import cast

from rtda_training.models.backbones import BackboneKind, build_backbone
from rtda_training.models.backbones.ddrnet import DdrBackbone
from rtda_training.models.two_branches import TwoBranchNetwork

__all__ = ["DDRNet"]


class DDRNet(TwoBranchNetwork):
    """DDRNet-23-slim of Hong et al.

    Parameters at inference for 19 classes: 5,695,987; 38,355 more of the auxiliary head.

    Args:
        backbone: ``"ddrnet23-slim"``.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown or ``num_classes`` is not positive.

    Source: Hong et al., Deep Dual-resolution Networks (arXiv 2101.06085); weight of the auxiliary head: section 4.2.
    """

    NAME = "DDRNet"
    BACKBONE = "ddrnet23-slim"

    def __init__(self, backbone: str = "ddrnet23-slim", num_classes: int = 19) -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone)
        self._assemble(cast(DdrBackbone, build_backbone(self.settings["backbone"])))

    @classmethod
    def takes(cls, kind: BackboneKind) -> bool:
        """Its own backbone alone."""
        return kind.build is DdrBackbone
