"""PFR: the features of both domains, stage by stage, made alike in content and in style."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import DomainsObjective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.slots import choice, component, number

__all__ = ["Alignment", "AlignmentConfig", "gram"]

_STAGES = (2, 3, 4, 5)  # PFR's count, in which the stem is stage 1; SegOutput.features has these four


@dataclasses.dataclass(frozen=True)
class AlignmentConfig:
    """The weight is PFR's; the first choice of each key is our reading of its formulas (see ``Alignment``).

    Attributes:
        weight: Of both terms together.
        stages: Of the backbone, 2 to 5; ``[2, 3, 4, 5]`` is all of them.
        content: ``pixel`` compares features place by place, ``pooled`` their means over the map.
        reduction: ``norm``, the L2 norm of a picture's difference; ``mean-square``, the mean of its squares.
        detach_source: Whether only the target's features move.
        content_weight: Factor of the content term; 0 leaves it away.
        style_weight: Factor of the style term; 0 leaves it away.
    """

    weight: float = number(0.004, 0.0, 10.0)
    stages: tuple[int, ...] = _STAGES
    content: str = choice("pixel", "pooled")
    reduction: str = choice("norm", "mean-square")
    detach_source: bool = False
    content_weight: float = number(1.0, 0.0, 1e6)
    style_weight: float = number(1.0, 0.0, 1e6)

    def __post_init__(self) -> None:
        if not self.stages or len(set(self.stages)) != len(self.stages) or not set(self.stages) <= set(_STAGES):
            raise ConfigError(
                f"alignment.stages must be some of 2, 3, 4, 5, got {list(self.stages)}", hint="such as [4, 5]"
            )


@component("objectives", "alignment", AlignmentConfig)
class Alignment(DomainsObjective):
    """Progressive feature refinement: ``sum over stages of |G(S) - G(T)| + |S - T|``, G the Gram matrix.

    The paper leaves much open. Our default is what it prints: L2 norms, neither squared nor divided by their number of
    entries; features compared place by place, although the pictures show different scenes; no feature held fixed. Only
    so does its weight of 0.004 matter: on a BiSeNet-R18 with random weights at 512x256 the content term then gives each
    stage 2 to 3 % of the segmentation loss's gradient, as a mean of squares 0.02 %. The paper's batches have one
    picture: we pair pictures by their place in the batch and average over the pairs. Its Gram matrices have no scale
    given: we divide by C * H * W, so that entries are of the order 1 / C at any size. The style term's gradient is then
    far smaller than the content term's (by 300 to 400 times in that network); ``style_weight`` can change that.

    Source: Zhang et al., Towards Adaptive Semantic Segmentation by Progressive Feature Refinement, equations 2 to 4.
    """

    def __init__(self, config: AlignmentConfig, stage: StageContext) -> None:
        self._config = config

    def network_loss(self, context: StepContext) -> Tensor:
        source, target = context.source_output().features, context.target_output().features
        losses = [self._stage(source[stage - _STAGES[0]], target[stage - _STAGES[0]]) for stage in self._config.stages]
        return self._config.weight * torch.stack(losses).sum()

    def _stage(self, source: Tensor, target: Tensor) -> Tensor:
        config = self._config
        with torch.autocast(source.device.type, enabled=False):
            source, target = source.float(), target.float()
            if config.detach_source:
                source = source.detach()
            style = self._reduced(gram(source) - gram(target))
            if config.content == "pooled":
                source, target = source.mean(dim=(2, 3)), target.mean(dim=(2, 3))
            return config.content_weight * self._reduced(source - target) + config.style_weight * style

    def _reduced(self, difference: Tensor) -> Tensor:
        """(N, ...) -> scalar: of each picture, then the mean over pictures."""
        rows = difference.flatten(1)
        if self._config.reduction == "mean-square":
            return rows.square().mean()
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return norms.mean()


def gram(features: Tensor) -> Tensor:
    """float32 (N, C, H, W) -> (N, C, C): products of channels summed over the map, divided by C * H * W."""
    channels, height, width = features.shape[1:]
    rows = features.flatten(2)
    return torch.bmm(rows, rows.transpose(1, 2)) / (channels * height * width)
