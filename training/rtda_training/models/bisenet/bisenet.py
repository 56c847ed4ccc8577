"""BiSeNet: a context path for what, a spatial path for where, fused at 1/8 of the input.

Coarse logits at 1/8 are the network's real answer: the runtime upsamples them itself, training does it for the loss.
The papers' network ("rtda") upsamples first and ends in a 1x1 convolution at full resolution. Bilinear weights sum to
one, so a 1x1 convolution, bias included, gives the same before and after upsampling; we put it before, at 1/64 of
the cost. ``published_logits`` keeps the published order, for comparison and for ``count_macs``.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtda_training.models.backbones import Backbone, build_backbone
from rtda_training.models.bisenet.paper import (
    PaperContextPath,
    PaperFusion,
    paper_aux_heads,
    paper_head,
    paper_spatial_path,
)
from rtda_training.models.bisenet.rtda import RtdaContextPath, RtdaFusion, rtda_aux_heads, rtda_head, rtda_spatial_path
from rtda_training.models.blocks import full_size, initialise, upsampled
from rtda_training.models.network import OUTPUT_STRIDE, DeployView, SegmentationNetwork, SegOutput

__all__ = ["BiSeNet"]


class BiSeNet(SegmentationNetwork):
    """Real-time segmentation network of Yu et al. (ECCV 2018), in the papers' or the original's shape.

    Parameters at inference for 19 classes: ``rtda`` 12,054,042 (ResNet-18) and 48,693,786 (ResNet-101), ``paper``
    13,275,539 (ResNet-18). The random start is decided by ``torch.manual_seed``; ImageNet weights come from
    ``load_backbone_weights``.

    Args:
        backbone: ``"resnet18"``, ``"resnet101"`` or another of output stride 32.
        variant: ``"rtda"``, the lineage of the adaptation papers, or ``"paper"``, close to the original.
        num_classes: Channels of the logits.

    Raises:
        ConfigError: If a name is unknown or ``num_classes`` is not positive.
    """

    NAME = "BiSeNet"
    AUX_WEIGHTS = (1.0, 1.0)
    SIZE_MULTIPLE = 32
    BACKBONE = "resnet18"
    VARIANTS = ("rtda", "paper")

    context_path: RtdaContextPath | PaperContextPath
    fusion: RtdaFusion | PaperFusion

    def __init__(self, backbone: str = "resnet18", variant: str = "rtda", num_classes: int = 19) -> None:
        super().__init__(num_classes)
        self.settings = self.checked_settings(backbone=backbone, variant=variant)
        self.variant = variant = self.settings["variant"]
        self.backbone = build_backbone(self.settings["backbone"], self.BACKBONE_STRIDE)
        if variant == "rtda":
            self.spatial_path = rtda_spatial_path()
            self.context_path = RtdaContextPath(self.backbone.channels)
            self.fusion = RtdaFusion(self.context_path.out_channels, num_classes)
            self.head = rtda_head(num_classes)
            self.aux_heads = rtda_aux_heads(self.context_path, num_classes)
        else:
            self.spatial_path = paper_spatial_path()
            self.context_path = PaperContextPath(self.backbone.channels)
            self.fusion = PaperFusion()
            self.head = paper_head(num_classes)
            self.aux_heads = paper_aux_heads(num_classes)
        for part in (self.spatial_path, self.context_path, self.fusion, self.head, self.aux_heads):
            # Slopes of the two lineages' own initialisation.
            initialise(part, negative_slope=0.0 if variant == "rtda" else 1.0)

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it.

        Args:
            image: float32 (N, 3, H, W), normalised as the ``ModelSpec`` says; H and W multiples of 32.
            aux: Whether the auxiliary heads run; None: in training mode only.

        Raises:
            ModelError: If the shape does not fit, or for one picture in training mode: batch norms after global pooling
                would see one value of it.
        """
        self._check(image)
        features = self.backbone(image)
        context, aux_maps = self.context_path(features)
        coarse = self.head(self.fusion(self.spatial_path(image), context))  # (N, C, H/8, W/8)
        aux_logits: tuple[Tensor, ...] = ()
        if self._wants_aux(aux):
            aux_logits = tuple(
                _to_width(head(x), image.shape[3]) for head, x in zip(self.aux_heads, aux_maps, strict=True)
            )
        return SegOutput(full_size(coarse, OUTPUT_STRIDE), coarse, aux_logits, features)

    def published_logits(self, image: Tensor) -> Tensor:
        """``forward(image).logits`` in the order of operations the lineage published; equal up to rounding.

        For ``rtda`` the head runs at full resolution: 0.19 G multiply-adds at 1024x512 instead of 0.003 G.
        """
        self._check(image)
        context, _ = self.context_path(self.backbone(image))
        fused = self.fusion(self.spatial_path(image), context)
        if self.variant == "rtda":
            logits: Tensor = self.head(upsampled(fused, OUTPUT_STRIDE))
            return logits
        return upsampled(self.head(fused), OUTPUT_STRIDE)

    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode, without auxiliary heads."""
        return _BiSeNetView(self)

    def _pooled(self) -> tuple[nn.Module, ...]:
        return (*self.context_path.pooled(), *self.fusion.pooled())


class _BiSeNetView(DeployView):
    backbone: Backbone
    spatial_path: nn.Sequential
    context_path: RtdaContextPath | PaperContextPath
    fusion: RtdaFusion | PaperFusion
    head: nn.Module

    def _coarse(self, image: Tensor) -> Tensor:
        context, _ = self.context_path(self.backbone(image))
        coarse: Tensor = self.head(self.fusion(self.spatial_path(image), context))
        return coarse


def _to_width(logits: Tensor, width: int) -> Tensor:
    """Upsample auxiliary logits, whose stride is 8 or 16, to the input's size."""
    return full_size(logits, width // logits.shape[3])
