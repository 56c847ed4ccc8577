"""Cross-entropy on the labelled domain."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.losses import heads_cross_entropy
from rtda_training.adapt.slots import component, number

__all__ = ["Supervised", "SupervisedConfig", "aux_weight"]


@dataclasses.dataclass(frozen=True)
class SupervisedConfig:
    """Weight of each auxiliary head's loss; negative: the network's own (1 for BiSeNet, 0.1 for DeepLab-v2)."""

    aux_weight: float = number(-1.0, -1.0, 10.0)


@component("objectives", "supervised", SupervisedConfig)
class Supervised(Objective):
    """Cross-entropy on the labelled domain, summed over the main and the auxiliary heads.

    Source: Yu et al., BiSeNet (ECCV 2018), section 3.3; RTDA, section IV.
    """

    log_name = "seg"

    def __init__(self, config: SupervisedConfig, stage: StageContext) -> None:
        self._aux_weight = aux_weight(config.aux_weight, stage)

    def network_loss(self, context: StepContext) -> Tensor:
        return heads_cross_entropy(context.source_output(), context.label, self._aux_weight, share=context.share)


def aux_weight(asked: float, stage: StageContext) -> float:
    """The weight of auxiliary heads: as asked, or the network's own where that is negative."""
    return asked if asked >= 0 else float(getattr(stage.network, "aux_weight", 1.0))
