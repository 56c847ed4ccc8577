"""Feature distance: things keep the features that the network started from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import component, number

__all__ = ["FeatureDistance", "FeatureDistanceConfig"]

# Classes of countable objects, which ImageNet knows: DAFormer's choice of Cityscapes' classes, and CamVid's names.
_THINGS = (
    *("traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    *("SignSymbol", "Car", "Pedestrian", "Bicyclist"),
)


@dataclasses.dataclass(frozen=True)
class FeatureDistanceConfig:
    """The numbers are DAFormer's.

    Attributes:
        weight: Of the term.
        fill: Least share of a feature cell's pixels that one thing class must have for the cell to count.
        things: Names of the thing classes; empty: Cityscapes' ten and CamVid's four, as far as they are there.
    """

    weight: float = number(0.005, 0.0, 10.0)
    fill: float = number(0.75, 0.0, 1.0)
    things: tuple[str, ...] = ()


@component("objectives", "feature-distance", FeatureDistanceConfig)
class FeatureDistance(Objective):
    """L2 distance of last-stage features of source pictures to those of the backbone as it was when the stage started.

    ImageNet's features where the stage starts from its weights. Averaged over the cells that a thing fills; 0 where
    there is none. The frozen copy's batch norms work as the network's own do, by the batch or by fixed statistics, so
    that the distance starts at 0 and is that of what was learned since.

    Attributes:
        things: Ids of the classes that are things.
        start: The frozen copy of the backbone.

    Source: Hoyer et al., DAFormer (CVPR 2022), section 3.
    """

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    def __init__(self, config: FeatureDistanceConfig, stage: StageContext) -> None:
        self._config = config
        self._fabric = stage.fabric
        self.things = _indices(config.things, stage.classes.names)
        self._backbone = cast(nn.Module, stage.network.backbone)
        self.start = copy.deepcopy(self._backbone).requires_grad_(False)

    def network_loss(self, context: StepContext) -> Tensor:
        features = context.source_output().features[-1].float()
        cells = filled(context.label, self.things, (features.shape[2], features.shape[3]), self._config.fill)
        distance = torch.linalg.vector_norm(features - self._start_features(context.source), dim=1)  # (N, h, w)
        count = context.share(cells.sum().float())
        mean = (distance * cells).sum() / torch.where(count > 0, count, torch.ones_like(count))
        loss: Tensor = self._config.weight * mean
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start.load_state_dict(state["start"])

    def _start_features(self, pictures: Tensor) -> Tensor:
        for frozen, live in zip(self.start.modules(), self._backbone.modules(), strict=True):
            frozen.training = live.training
            if isinstance(frozen, nn.modules.batchnorm._BatchNorm):
                frozen.momentum = 0.0  # what it was must not change with what it sees
        with torch.no_grad(), self._fabric.autocast():
            features: tuple[Tensor, ...] = self.start(pictures)
        return features[-1].float()


def filled(label: Tensor, classes: Sequence[int], size_hw: tuple[int, int], fill: float) -> Tensor:
    """Cells of which one of the classes has at least the share ``fill``.

    Args:
        label: int64 (N, H, W), 255 where not labelled; such pixels are of no class.
        classes: Their ids.
        size_hw: Cells along height and width.
        fill: Share, 0..1.

    Returns:
        bool (N, h, w).
    """
    of_class = torch.stack([label == index for index in classes], dim=1).float()  # (N, classes, H, W)
    shares = functional.adaptive_avg_pool2d(of_class, size_hw)
    return shares.amax(dim=1) >= fill


def _indices(things: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    unknown = [name for name in things if name not in names]
    if unknown:
        raise ConfigError(
            f"feature-distance.things: no class is called {unknown[0]!r}", hint=f"known: {', '.join(names)}"
        )
    found = tuple(index for index, name in enumerate(names) if name in (things or _THINGS))
    if not found:
        raise ConfigError(
            f"feature-distance knows none of these classes for a thing: {', '.join(names)}",
            hint='name them, such as feature-distance.things = ["car"]; or take it out of objectives',
        )
    return found
