"""Cross-entropy on the labelled domain."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.losses import heads_cross_entropy, pixel_cross_entropy
from rtda_training.adapt.slots import choice, component, number
from rtda_training.labels import IGNORE_INDEX

__all__ = ["Supervised", "SupervisedConfig", "aux_weight"]


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """What of the labelled domain counts, and how much.

    Attributes:
        aux_weight: Weight of each auxiliary head's loss; negative: the network's own (1 for BiSeNet and PP-LiteSeg, 0.4
            for DDRNet and GCNet, 0.1 for DeepLab-v2).
        hardest: Share of each batch's labelled pixels that always counts, those of the largest loss; 1: all of them
            (BiSeNet's authors: a sixteenth).
        easy: A pixel outside that share counts too if its label has less than this probability (0.7 there).
        class_weights: ``frequency``: a pixel weighs by ``frequency ** -0.5`` of its class in the labelled set, the mean
            over its pixels 1.
    """

    aux_weight: float = number(-1.0, -1.0, 10.0)
    hardest: float = number(1.0, 0.001, 1.0)
    easy: float = number(0.7, 0.01, 1.0)
    class_weights: str = choice("none", "frequency")


@component("objectives", "supervised", SupervisedConfig)
class Supervised(Objective):
    """Cross-entropy on the labelled domain, summed over the main and the auxiliary heads.

    Source: Yu et al., BiSeNet (ECCV 2018), section 3.3; RTDA, section IV. Hard pixels: Shrivastava et al., OHEM (CVPR
    2016), as BiSeNet's authors train.
    """

    log_name = "seg"

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return True

    def __init__(self, config: SupervisedConfig, stage: StageContext) -> None:
        self._config = config
        self._aux_weight = aux_weight(config.aux_weight, stage)
        self._weights = _class_weights(stage) if config.class_weights == "frequency" else None

    def network_loss(self, context: StepContext) -> Tensor:
        output, label = context.source_output(), context.label
        if self._weights is not None:
            self._weights = self._weights.to(label.device)
        weight = None if self._weights is None else self._weights[label]
        if self._config.hardest == 1.0:
            return heads_cross_entropy(output, label, self._aux_weight, weight, context.share)
        factors = (1.0, *[self._aux_weight] * len(output.aux))
        losses = [
            factor * pixel_cross_entropy(logits, self._hard(logits, label), weight, context.share)
            for factor, logits in zip(factors, (output.logits, *output.aux), strict=True)
        ]
        return torch.stack(losses).sum()

    def _hard(self, logits: Tensor, label: Tensor) -> Tensor:
        """``label`` with 255 where one head is sure of it, but for the share of pixels that it is least sure of."""
        labelled = label != IGNORE_INDEX
        known = torch.where(labelled, label, torch.zeros_like(label))
        probability = logits.detach().float().softmax(dim=1).gather(1, known[:, None])[:, 0]
        probability = torch.where(labelled, probability, torch.ones_like(probability))
        count = max(1, int(self._config.hardest * int(labelled.sum())))
        limit = probability.flatten().kthvalue(count).values.clamp(min=self._config.easy)
        return torch.where(probability <= limit, label, torch.full_like(label, IGNORE_INDEX))


def _class_weights(stage: StageContext) -> Tensor:
    """float32 (256,): the factor of a pixel of each class; 0 for 255."""
    from rtda_training.data.index import index_of

    assert stage.source is not None
    frequencies = np.asarray(index_of(stage.source).frequencies, dtype=np.float64)
    weights = np.where(frequencies > 0, np.maximum(frequencies, 1e-6) ** -0.5, 0.0)
    table = np.zeros(256)
    table[: len(weights)] = weights / (weights * frequencies).sum()
    return torch.as_tensor(table, dtype=torch.float32)


def aux_weight(asked: float, stage: StageContext) -> float:
    """The weight of auxiliary heads: as asked, or the network's own where that is negative."""
    return asked if asked >= 0 else float(getattr(stage.network, "aux_weight", 1.0))
