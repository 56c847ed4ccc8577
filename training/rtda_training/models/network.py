"""The contract of every segmentation network: its settings, its forward, its output and the view that is deployed."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, ModelError
from rtda_training.models.backbones import BACKBONES, Backbone, BackboneKind, Features
from rtda_training.models.blocks import fuse_paths

__all__ = ["OUTPUT_STRIDE", "DeployView", "SegOutput", "SegmentationNetwork", "check_shape"]

OUTPUT_STRIDE = 8  # input pixels per coarse logit, of every network: the runtime's upsampling is made for it
_TRAINING_ONLY = "aux_heads"


class SegOutput(NamedTuple):
    """What a segmentation network gives for a batch of pictures.

    The same type in ``train()`` and ``eval()`` mode: only ``aux`` is empty in the latter. A named tuple and not a
    frozen dataclass because Fabric's mixed precision and DDP walk through it, and Fabric refuses frozen dataclasses.

    Attributes:
        logits: float (N, C, H, W), at the size of the input.
        coarse: float (N, C, H/8, W/8), what the deployed network gives; bilinear x8 of it (``align_corners=False``)
            *is* ``logits``.
        aux: float (N, C, H, W) logits of the auxiliary heads, in the order of ``AUX_WEIGHTS``; ``()`` where they did
            not run.
        features: The four maps of the backbone, at strides 4, 8, 16 and 32, none coarser than ``BACKBONE_STRIDE``.
    """

    logits: Tensor
    coarse: Tensor
    aux: tuple[Tensor, ...]
    features: Features


class SegmentationNetwork(nn.Module, abc.ABC):
    """Base of every network: pictures in, ``SegOutput`` out, in ``train()`` and ``eval()`` mode alike.

    A subclass is built by ``cls(num_classes=..., **settings)``, where the settings are those of ``known_settings`` and,
    for a checkpoint that states them, ``OPTIONS``; it keeps what ``checked_settings`` makes of them in ``settings``.

    Attributes:
        NAME: In a spec's provenance, and for people.
        AUX_WEIGHTS: Of each auxiliary head's loss beside the main one's 1.0, as the network's own paper has them.
        SIZE_MULTIPLE: Height and width must be multiples of it; other sizes would shift the maps that are joined.
        BACKBONE: The usual one.
        BACKBONE_STRIDE: Output stride that the backbone is asked for.
        VARIANTS: Shapes to choose from, the usual one first; empty where there is one only.
        OPTIONS: Numbers that an architecture may state too, with the published ones.
        num_classes: Channels of the logits.
        settings: Words of the user's settings that it was built with.
        backbone: What ``load_backbone_weights`` fills; ``backbone.name`` is the user's word for it.
        aux_heads: One per weight; they exist for training alone.
    """

    NAME: ClassVar[str]
    AUX_WEIGHTS: ClassVar[tuple[float, ...]]
    SIZE_MULTIPLE: ClassVar[int]
    BACKBONE: ClassVar[str]
    BACKBONE_STRIDE: ClassVar[int] = 32
    VARIANTS: ClassVar[tuple[str, ...]] = ()
    OPTIONS: ClassVar[Mapping[str, int]] = {}

    settings: Mapping[str, str]
    backbone: Backbone
    aux_heads: nn.ModuleList

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be positive, got {num_classes}", hint="Cityscapes has 19")
        self.num_classes = num_classes

    @classmethod
    def takes(cls, kind: BackboneKind) -> bool:
        """Whether it can be built on such a backbone."""
        return cls.BACKBONE_STRIDE in kind.output_strides and not kind.own_layers

    @classmethod
    def known_settings(cls) -> dict[str, tuple[str, ...]]:
        """The settings that a user chooses, each with the words it takes; the usual one first."""
        fitting = (name for name, kind in BACKBONES.items() if cls.takes(kind))
        backbones = tuple(sorted(fitting, key=lambda name: name != cls.BACKBONE))
        return {"backbone": backbones, **({"variant": cls.VARIANTS} if cls.VARIANTS else {})}

    @classmethod
    def checked_settings(cls, **words: str) -> dict[str, str]:
        """The settings with these words, and with the usual ones where a word is empty.

        Raises:
            ConfigError: If a word is unknown, with the known ones, or the network has no such setting.
        """
        known = cls.known_settings()
        for key, word in words.items():
            if word and key not in known:
                raise ConfigError(f"{cls.NAME} has no {key} {word!r}", hint=f"leave {key} away: it has one only")
            if word and word not in known[key]:
                raise ConfigError(f"{cls.NAME} has no {key} {word!r}", hint=f"known: {', '.join(known[key])}")
        return {key: words.get(key) or usual[0] for key, usual in known.items()}

    @property
    def architecture(self) -> dict[str, str | int]:
        """What a spec's provenance says of the network; ``build_network`` builds an equal one from it."""
        return {"name": self.NAME, **self.settings}

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

    def _check(self, image: Tensor) -> None:
        """Raise ``ModelError`` for a batch that the network does not take in its present mode."""
        check_shape(image, self.SIZE_MULTIPLE)
        if image.shape[0] > 1:
            return
        # Frozen (evaluation mode) and synchronised batch norms are fine.
        if any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in self._pooled()):
            raise ModelError(
                "training needs at least 2 pictures per device, got 1: batch norm after global pooling "
                "has one value per picture",
                hint="set batch_size >= 2 per device, or convert to SyncBatchNorm on several devices",
            )

    def _pooled(self) -> tuple[nn.Module, ...]:
        """Layers that see one value per picture and channel: over one picture that has no variance."""
        return ()

    def _wants_aux(self, aux: bool | None) -> bool:
        return self.training if aux is None else aux


class DeployView(nn.Module, abc.ABC):
    """The network as deployed: float32 (N, 3, H, W) -> coarse logits (N, C, H/8, W/8), nothing else.

    Owns a copy of the weights, under the network's own names, so that folding or converting it leaves the trained
    network as it is. Blocks that have fewer layers where they run (``Reparameterised``) are fused.
    """

    def __init__(self, model: SegmentationNetwork) -> None:
        super().__init__()
        self.num_classes = model.num_classes
        self.size_multiple = model.SIZE_MULTIPLE
        for name, part in model.named_children():
            if name != _TRAINING_ONLY:
                self.add_module(name, copy.deepcopy(part))
        self.eval().requires_grad_(False)
        fuse_paths(self)

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
