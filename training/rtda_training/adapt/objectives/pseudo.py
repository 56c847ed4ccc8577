"""Cross-entropy on the target, against the labels that the stage's labeler gives it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from torch import Tensor

from rtda_training.adapt.class_weights import ClassWeights
from rtda_training.adapt.components import TARGET_FORWARD, Objective
from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.adapt.losses import heads_cross_entropy
from rtda_training.adapt.objectives.supervised import aux_weight
from rtda_training.adapt.slots import choice, component, number
from rtda_training.models import SegOutput

__all__ = ["LabelledTerm", "LabelledTermConfig", "Pseudo"]


@dataclasses.dataclass(frozen=True)
class LabelledTermConfig:
    """How much the term counts, and which of its pixels more.

    Attributes:
        weight: Of the term.
        aux_weight: Within it, of each auxiliary head; negative: the network's own.
        class_weights: ``frequency``: a pixel weighs by ``frequency ** -0.5`` of its class in the labelled source set,
            whatever class the labeler took it for. A network that was taught so on the source forgets small classes
            where its own labels count alike.
    """

    weight: float = number(1.0, 0.0, 10.0)
    aux_weight: float = number(-1.0, -1.0, 10.0)
    class_weights: str = choice("none", "frequency")


class LabelledTerm(Objective):
    """A weighted cross-entropy of all heads on pictures whose labels were made, not drawn by people."""

    needs_target = True
    requires: ClassVar[tuple[str, ...]] = ("labeler",)

    @classmethod
    def needs_source(cls, config: LabelledTermConfig) -> bool:
        return config.class_weights == "frequency"

    def __init__(self, config: LabelledTermConfig, stage: StageContext) -> None:
        self._weight = config.weight
        self._classes = ClassWeights(stage) if config.class_weights == "frequency" else None
        self._aux_weight = aux_weight(config.aux_weight, stage)

    def _cross_entropy(self, output: SegOutput, label: Tensor, weight: Tensor | None, context: StepContext) -> Tensor:
        """Over the labelled pixels of all processes; 0 where there is none."""
        if self._classes is not None:
            weight = self._classes.of(label, weight)
        return self._weight * heads_cross_entropy(output, label, self._aux_weight, weight, context.share)


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
        label, weight = context.pseudo_labels()
        return self._cross_entropy(context.target_output(), label, weight, context)
