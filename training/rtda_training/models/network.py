"""What every segmentation network is to the rest of the toolkit: one forward, one answer, one view to deploy."""

from __future__ import annotations

import abc
import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models.backbones.resnet import ResNet
from rtda_training.models.backbones.vgg import VGG16
from rtda_training.models.output import SegOutput

__all__ = ["OUTPUT_STRIDE", "DeployView", "SegmentationNetwork", "check_shape"]

OUTPUT_STRIDE = 8  # input pixels per coarse logit, of every network: the runtime's upsampling is made for it
_TRAINING_ONLY = "aux_heads"


class SegmentationNetwork(nn.Module, abc.ABC):
    """Base of every network: pictures in, ``SegOutput`` out, in ``train()`` and ``eval()`` mode alike.

    Attributes:
        NAME: In a spec's provenance.
        AUX_WEIGHTS: Of each auxiliary head's loss beside the main one's 1.0, as the network's own paper has them.
        SIZE_MULTIPLE: Height and width must be multiples of it; other sizes would shift the maps that are joined.
        FEATURE_STRIDES: Input pixels per value of the four ``SegOutput.features``.
        num_classes: Channels of the logits.
        backbone: What ``load_backbone_weights`` fills; ``backbone.name`` is the user's word for it.
        aux_heads: One per weight; they exist for training alone.
    """

    NAME: ClassVar[str]
    AUX_WEIGHTS: ClassVar[tuple[float, ...]]
    SIZE_MULTIPLE: ClassVar[int]
    FEATURE_STRIDES: ClassVar[tuple[int, int, int, int]] = (4, 8, 16, 32)

    backbone: ResNet | VGG16
    aux_heads: nn.ModuleList

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be positive, got {num_classes}", hint="Cityscapes has 19")
        self.num_classes = num_classes

    @property
    def architecture(self) -> dict[str, str | int]:
        """What a spec's provenance says of the network; ``build_network`` builds an equal one from it."""
        return {"name": self.NAME, "backbone": self.backbone.name}

    @property
    def aux_weight(self) -> float:
        """The weight that all auxiliary heads share; 0 where there are none."""
        return self.AUX_WEIGHTS[0] if self.AUX_WEIGHTS else 0.0

    @property
    def size_multiple(self) -> int:
        """``SIZE_MULTIPLE``."""
        return self.SIZE_MULTIPLE

    @abc.abstractmethod
    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        """Logits at the input's size and at 1/8 of it.

        Args:
            image: float32 (N, 3, H, W), normalised as the ``ModelSpec`` says; H and W multiples of ``SIZE_MULTIPLE``.
            aux: Whether the auxiliary heads run; None: in training mode only.

        Raises:
            ModelError: If the shape does not fit.
        """

    @abc.abstractmethod
    def deploy_view(self) -> DeployView:
        """What goes to the robot: a copy of the weights in evaluation mode, without auxiliary heads."""

    def published_logits(self, image: Tensor) -> Tensor:
        """``forward(image).logits`` in the order of operations that was published, which ``count_macs`` counts."""
        output: SegOutput = self(image, aux=False)
        return output.logits

    def _wants_aux(self, aux: bool | None) -> bool:
        return self.training if aux is None else aux


class DeployView(nn.Module, abc.ABC):
    """The network as deployed: float32 (N, 3, H, W) -> coarse logits (N, C, H/8, W/8), nothing else.

    Owns a copy of the weights, under the network's own names, so that folding or converting it leaves the trained
    network as it is.
    """

    def __init__(self, model: SegmentationNetwork) -> None:
        super().__init__()
        self.num_classes = model.num_classes
        self.size_multiple = model.SIZE_MULTIPLE
        for name, part in model.named_children():
            if name != _TRAINING_ONLY:
                self.add_module(name, copy.deepcopy(part))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        if not _being_exported():
            check_shape(image, self.size_multiple)
        return self._coarse(image)

    @abc.abstractmethod
    def _coarse(self, image: Tensor) -> Tensor:
        """The coarse logits of pictures whose shape fits."""


def check_shape(image: Tensor, multiple: int) -> None:
    """Raise ``ModelError`` for what is no batch of pictures of a size that the network takes."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ModelError(
            f"expected pictures (N, 3, H, W), got {tuple(image.shape)}",
            hint="a single picture (3, H, W) becomes a batch by image[None]",
        )
    height, width = int(image.shape[2]), int(image.shape[3])
    if height % multiple or width % multiple or not height or not width:
        raise ModelError(
            f"expected height and width in multiples of {multiple}, got {height}x{width} (HxW)",
            hint=f"nearest that works: {_nearest(height, multiple)}x{_nearest(width, multiple)}",
        )


def _being_exported() -> bool:
    """A tracer would warn about our comparisons and pin dynamic sizes; the exporter checks its size itself."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_compiling()


def _nearest(length: int, multiple: int) -> int:
    return max(1, (length + multiple // 2) // multiple) * multiple
