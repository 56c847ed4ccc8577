"""Cross-entropy on the target, against the labels that the stage's labeler gives it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from rtda_training.adapt.components import TARGET_FORWARD, Objective
from rtda_training.adapt.context import MixedBatch, PseudoLabels, StageContext, StepContext
from rtda_training.adapt.losses import heads_cross_entropy
from rtda_training.adapt.objectives.supervised import aux_weight
from rtda_training.adapt.slots import component, number
from rtda_training.models import SegOutput

__all__ = ["LabelledTerm", "LabelledTermConfig", "Pseudo"]


@dataclasses.dataclass(frozen=True)
class LabelledTermConfig:
    """Weight of the term, and within it of each auxiliary head; negative: the network's own."""

    weight: float = number(1.0, 0.0, 10.0)
    aux_weight: float = number(-1.0, -1.0, 10.0)


class LabelledTerm(Objective):
    """A weighted cross-entropy of all heads on pictures whose labels were made, not drawn by people."""

    needs_target = True
    requires: ClassVar[tuple[str, ...]] = ("labeler",)

    def __init__(self, config: LabelledTermConfig, stage: StageContext) -> None:
        self._weight = config.weight
        self._aux_weight = aux_weight(config.aux_weight, stage)

    def _cross_entropy(self, output: SegOutput, labels: PseudoLabels | MixedBatch, context: StepContext) -> Tensor:
        """Over the labelled pixels of all processes; 0 where there is none."""
        label, weight, soft = labels.label, labels.weight, labels.soft
        return self._weight * heads_cross_entropy(output, label, self._aux_weight, weight, context.share, soft)


@component("objectives", "pseudo", LabelledTermConfig)
class Pseudo(LabelledTerm):
    """Cross-entropy on the target batch against its pseudo labels.

    Source: Li et al., BDL (CVPR 2019), section 3; weight 1 there.
    """

    @classmethod
    def silenced(cls, config: Any) -> tuple[str, Any]:
        del config
        return TARGET_FORWARD

    def network_loss(self, context: StepContext) -> Tensor:
        return self._cross_entropy(context.target_output(), context.pseudo_labels(), context)
