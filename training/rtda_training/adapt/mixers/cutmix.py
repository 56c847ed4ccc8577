"""CutMix: a rectangle of a source picture, put onto a target picture."""

from __future__ import annotations

import dataclasses

import torch

from rtda_training.adapt.components import Mixer
from rtda_training.adapt.context import MixedBatch, StageContext, StepContext
from rtda_training.adapt.mixers.classmix import PastedConfig, pasted
from rtda_training.adapt.mixers.rectangle import rectangle
from rtda_training.adapt.slots import component, number

__all__ = ["CutMix", "CutMixConfig"]


@dataclasses.dataclass(frozen=True)
class CutMixConfig(PastedConfig):
    """``area``: the rectangle's share of the picture; the rest as in ClassMix."""

    area: float = number(0.5, 0.01, 1.0)


@component("mixer", "cutmix", CutMixConfig)
class CutMix(Mixer):
    """A rectangle of fixed area, of random shape and place, of each source picture on the target picture beside it.

    Source: French et al., Semi-supervised semantic segmentation needs strong, varied perturbations (BMVC 2020).
    """

    def __init__(self, config: CutMixConfig, stage: StageContext) -> None:
        del stage
        self._config = config

    @torch.no_grad()
    def mix(self, context: StepContext) -> MixedBatch:
        mask = torch.zeros_like(context.label, dtype=torch.bool)
        generators = [context.rng("cutmix", place) for place in range(mask.shape[0])]
        for place, rng in enumerate(generators):
            top, bottom, left, right = rectangle(rng, self._config.area, mask.shape[1], mask.shape[2])
            mask[place, top:bottom, left:right] = True
        return pasted(context, mask, self._config, generators)
