"""ClassMix between target pictures: what the labeler takes for some classes in one, put onto another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Mixer
from rtda_training.adapt.context import MixedBatch, StageContext, StepContext
from rtda_training.adapt.mixers.classmix import Front, PastedConfig, classes_drawn, pasted
from rtda_training.adapt.slots import component

__all__ = ["ClassMixTarget", "ClassMixTargetConfig"]


class ClassMixTargetConfig(PastedConfig):
    """How mixed pictures are changed."""


@component("mixer", "classmix-target", ClassMixTargetConfig)
class ClassMixTarget(Mixer):
    """Pixels of half of the classes of each target picture on the next of the batch, with both pictures' pseudo labels.

    It needs no source picture. Classes are those that the labeler gave the picture; where it gave no label, nothing is
    pasted.

    Source: Olsson et al., ClassMix (WACV 2021), which mixes unlabelled pictures; without a source: the published code
        of LDBE.
    """

    def __init__(self, config: PastedConfig, stage: StageContext) -> None:
        self._config = config
        if stage.batch_size < 2:
            raise ConfigError(
                "classmix-target pastes from one picture of a batch into another, and batches have one",
                hint="--set batch_size=2 or more",
            )

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        del config
        return False

    @torch.no_grad()
    def mix(self, context: StepContext) -> MixedBatch:
        frames, (label, weight, soft) = context.target_frames, context.pseudo_labels()
        assert frames is not None
        front = Front(_next(frames), _next(label), _next_of(weight), _next_of(soft))
        generators = [context.rng("classmix-target", place) for place in range(label.shape[0])]
        return pasted(context, classes_drawn(front.label, generators), self._config, generators, front)


def _next_of(batch: Tensor | None) -> Tensor | None:
    return None if batch is None else _next(batch)


def _next(batch: Tensor) -> Tensor:
    """Each picture in the place of the one before it."""
    return batch.roll(-1, dims=0)
