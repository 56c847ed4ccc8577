"""ClassMix and CutMix in turn, so that a network meets the edges of objects and those of rectangles."""

from __future__ import annotations

import dataclasses

from rtda_training.adapt.components import Mixer
from rtda_training.adapt.context import MixedBatch, StageContext, StepContext
from rtda_training.adapt.mixers.classmix import ClassMix, ClassMixConfig
from rtda_training.adapt.mixers.cutmix import CutMix, CutMixConfig
from rtda_training.adapt.slots import component

__all__ = ["InTurn", "InTurnConfig"]


@dataclasses.dataclass(frozen=True)
class InTurnConfig(CutMixConfig, ClassMixConfig):
    """Settings of both; ``area`` is CutMix's, ``rare`` ClassMix's."""


@component("mixer", "in-turn", InTurnConfig)
class InTurn(Mixer):
    """ClassMix in steps 0, 2, 4, …, CutMix in the others.

    Source: Chen et al., DDB (NeurIPS 2022), section 3.1, has a network for each and lets them teach a third; here one
    network gets both.
    """

    def __init__(self, config: InTurnConfig, stage: StageContext) -> None:
        self._mixers = (ClassMix(config, stage), CutMix(config, stage))

    def mix(self, context: StepContext) -> MixedBatch:
        return self._mixers[context.step % 2].mix(context)
